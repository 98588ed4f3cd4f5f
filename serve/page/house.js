// The house, live: what /house says (serve/house.h), once a second while somebody looks, as tiles, a picture and a
// table.

import {bytes, digits, element, percent, svg} from "./dom.js";
import {HALVES, PARTS, picture} from "./picture.js";
import {get} from "./server.js";

const KEPT = 61;     // moments: a minute and its beginning
const SILENT_S = 3;  // ranks that have not been asked for so long have nothing to do

/* ---- what happened between two moments ---- */

const since = (a, b) => Math.max(0, b - a);

// Shares of the time between two moments that a rank computed, waited and sent; what is left it did nothing.
function timeOf(a, b, seconds) {
    const parts = ["compute_s", "wait_s", "wire_s"].map((k) => since(a[k], b[k]) / seconds);
    const sum = parts.reduce((x, y) => x + y, 0), [compute, wait, wire] = parts.map((p) => p / Math.max(1, sum));
    return {compute, wait, wire, idle: Math.max(0, 1 - sum)};
}

// The share of what devices looked at that fired: between two moments, or of all time where there was nothing between.
// null: they have looked at no neuron.
function liveOf(before, devices) {
    const sum = (key, of) => of.reduce((s, d) => s + d[key], 0);
    const looked = sum("neurons", devices) - sum("neurons", before), all = sum("neurons", devices);
    if (looked > 0)
        return Math.max(0, sum("live", devices) - sum("live", before)) / looked;
    return all > 0 ? sum("live", devices) / all : null;
}

function rankOf(a, b, seconds) {
    const devices = b.devices.map((d, i) => {
        const before = a.devices[i] || d;
        const rate = since(before.read_bytes, d.read_bytes) / seconds;
        return {...d, rate, busy: since(before.busy_s, d.busy_s) / seconds, live_share: liveOf([before], [d])};
    });
    return {...b, devices, time: timeOf(a, b, seconds), sends: since(a.sent_bytes, b.sent_bytes) / seconds,
        live: liveOf(a.devices, b.devices)};
}

// What the ranks did of late: between when they were asked last, and a second and a half or more before that.
function ranksOf(moments) {
    const b = moments.at(-1);
    const a = moments.findLast((m) => b.at_s - m.at_s >= 1.5) || moments.find((m) => m.at_s > 0 && m.at_s < b.at_s);
    const rest = !a || b.now_s - b.at_s > SILENT_S, before = rest ? b : a;
    const devices = (m) => m.ranks.flatMap((r) => r.devices);
    return {
        ranks: b.ranks.map((r, i) => rankOf(before.ranks[i] || r, r, rest ? 1 : b.at_s - a.at_s)),
        live: liveOf(devices(before), devices(b)),
    };
}

// Everything that is shown of now.
function figuresOf(moments) {
    const b = moments.at(-1);
    const a = moments.findLast((m) => b.now_s - m.now_s >= 1.5) || moments[0];
    const seconds = b.now_s - a.now_s || 1;
    const run = (m) => m.tokens.prompt - m.tokens.cached, steps = since(a.steps, b.steps);
    const f = ranksOf(moments);
    return {
        ...f, now: b,
        tokens: since(a.tokens.made, b.tokens.made) / seconds,
        prompt: since(run(a), run(b)) / seconds,
        step_s: steps > 0 && b.requests.running > 0 ? seconds / steps : null,
        reads: f.ranks.reduce((sum, r) => sum + r.devices.reduce((s, d) => s + d.rate, 0), 0),
    };
}

/* ---- tiles ---- */

// Tokens per second over the last minute.
function sparkline(moments) {
    const points = [];
    for (let i = 1; i < moments.length; i++) {
        const [a, b] = [moments[i - 1], moments[i]];
        if (b.now_s > a.now_s)
            points.push([b.now_s - moments.at(-1).now_s, since(a.tokens.made, b.tokens.made) / (b.now_s - a.now_s)]);
    }
    const most = Math.max(1, ...points.map((p) => p[1]));
    const at = ([t, v]) => `${(120 * (1 + t / 60)).toFixed(1)},${(30 - 28 * v / most).toFixed(1)}`;
    return svg("svg", {class: "spark", viewBox: "0 0 120 32", preserveAspectRatio: "none", "aria-hidden": "true"},
        svg("line", {x1: 0, x2: 120, y1: 31, y2: 31, class: "axis"}),
        ...(points.length > 1 ? [svg("polyline", {points: points.map(at).join(" ")})] : []));
}

function tile(name, value, unit, ...more) {
    const shown = element("span", "value", value, element("small", "", ` ${unit}`));
    return element("div", "tile", element("span", "name", name), shown, ...more);
}

const note = (text) => element("small", "", text);

const meter = (share) =>
    svg("svg", {class: "meter", viewBox: "0 0 100 4", preserveAspectRatio: "none", "aria-hidden": "true"},
        svg("rect", {width: 100, height: 4, class: "idle"}),
        svg("rect", {width: 100 * share, height: 4, class: "compute"}));

function tiles(f, moments) {
    const {kv} = f.now, used = kv.pages - kv.free;
    return element("div", "tiles",
        tile("Answers, last minute", digits(f.tokens), `tokens/s · prompts ${digits(f.prompt)}`, sparkline(moments)),
        tile("A step takes", f.step_s === null ? "–" : digits(1e3 * f.step_s), "ms", note("a token per text")),
        tile("Weights read", digits(f.reads / 1e9), "GB/s", note("by all devices")),
        tile("Live neurons", f.live === null ? "–" : percent(f.live), "", note("that fired")),
        tile("KV cache", `${used}`, `of ${kv.pages} pages`, meter(kv.pages ? used / kv.pages : 0),
            note("in use, or kept for later")));
}

const keys = (name, parts) =>
    element("p", "legend", `${name}: `, ...parts.map(([part, what]) => element("span", `key ${part}`, what)));

const legend = () => element("div", "", keys("Time", PARTS), keys("Layers, from the first to the last", HALVES));

/* ---- the same in figures ---- */

function table(f) {
    const row = (cell, ...texts) => element("tr", "", ...texts.map((t) => element(cell, "", t)));
    const shares = (r) => ["compute", "wait", "wire"].map((p) => percent(r.time[p]));
    const rows = f.ranks.flatMap((r) => r.devices.map((d, i) =>
        row("td", ...(i ? ["", ""] : [r.host, `${r.rank}`]), d.name, digits(d.rate / 1e9),
            percent(Math.min(1, d.busy)), d.live_share === null ? "–" : percent(d.live_share),
            ...(i ? ["", "", "", ""] : [...shares(r), `${bytes(r.sends)}/s`]))));
    const head = row("th", "Host", "Rank", "Device", "GB/s", "Busy", "Live", "Computing", "Waiting", "Wire", "Sends");
    return element("table", "", element("thead", "", head), element("tbody", "", ...rows));
}

/* ---- the view ---- */

const counted = (n, one, many) => (n === 1 ? `one ${one}` : `${n} ${many}`);

function inOneLine(now) {
    const n = now.ranks.length, hosts = new Set(now.ranks.map((r) => r.host)).size;
    const way = now.transport.startsWith("inproc") ? "in one process" : `over ${now.transport}`;
    const where = `${counted(n, "rank", "ranks")} on ${counted(hosts, "PC", "PCs")}${n === 1 ? "" : `, ${way}`}`;
    const room = `room for ${now.sequences} texts of ${now.context} tokens`;
    return [now.model, `${now.layers} layers`, where, room].join(" · ");
}

function state({running, waiting}) {
    const rest = !running && !waiting, wait = waiting ? `, ${waiting} more ${waiting === 1 ? "waits" : "wait"}` : "";
    const busy = running ? `Busy with ${counted(running, "text", "texts")}${wait}` : `About to begin${wait}`;
    return element("p", rest ? "state" : "state busy", rest ? "At rest: ready for a question" : busy);
}

// Draws into `place` while shown. `keyWanted()`: the server refused; true: ask again.
export function house(place, keyWanted) {
    const head = element("p", "note"), top = element("div"), drawn = element("div"), box = element("div", "table");
    const more = element("details", "", element("summary", "", "In figures"), box);
    let moments = [], shown = false, timer = 0, asking = false;
    place.append(element("h2", "", "The house"), head, top, drawn, legend(), more);

    const stale = (yes) => { // what is shown is of before
        place.classList.toggle("stale", yes);
        head.classList.toggle("failed", yes);
    };

    const draw = () => {
        const f = figuresOf(moments), width = drawn.clientWidth;
        head.textContent = inOneLine(f.now);
        top.replaceChildren(state(f.now.requests), tiles(f, moments));
        drawn.replaceChildren(picture(f, Math.max(280, width)));
        stale(false);
        box.replaceChildren(table(f));
    };

    const take = (now) => {
        if (moments.length && now.now_s < moments.at(-1).now_s)
            moments = []; // the server was started anew
        moments = [...moments, now].slice(-KEPT);
        draw();
    };

    const look = async () => {
        if (asking || !shown || document.hidden)
            return;
        asking = true;
        let next = 1000;
        try {
            take(await get("house"));
        } catch (e) {
            head.textContent = e.message;
            stale(true);
            next = e.status !== 401 ? 2000 : await keyWanted() ? 0 : -1;
        }
        asking = false;
        clearTimeout(timer);
        if (next >= 0)
            timer = setTimeout(look, next);
    };

    document.addEventListener("visibilitychange", look);
    addEventListener("resize", () => shown && moments.length && draw());
    return {
        show: (yes) => {
            shown = yes;
            look();
        },
    };
}

// The house, live: what /house says (serve/house.h), once a second while somebody looks, as tiles, a picture and a
// table.

import {bytes, digits, element, percent, svg} from "./dom.js";
import {PARTS, picture} from "./picture.js";
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

function rankOf(a, b, seconds) {
    const devices = b.devices.map((d, i) => {
        const before = a.devices[i] || d;
        const rate = since(before.read_bytes, d.read_bytes) / seconds;
        return {...d, rate, busy: since(before.busy_s, d.busy_s) / seconds};
    });
    return {...b, devices, time: timeOf(a, b, seconds), sends: since(a.sent_bytes, b.sent_bytes) / seconds};
}

// What the ranks did of late: between when they were asked last, and a second and a half or more before that.
function ranksOf(moments) {
    const b = moments.at(-1);
    const a = moments.findLast((m) => b.at_s - m.at_s >= 1.5) || moments.find((m) => m.at_s > 0 && m.at_s < b.at_s);
    const rest = !a || b.now_s - b.at_s > SILENT_S, before = rest ? b : a;
    const looked = since(before.neurons.looked, b.neurons.looked), live = since(before.neurons.live, b.neurons.live);
    return {
        ranks: b.ranks.map((r, i) => rankOf(before.ranks[i] || r, r, rest ? 1 : b.at_s - a.at_s)),
        live: looked > 0 ? live / looked : b.neurons.looked > 0 ? b.neurons.live / b.neurons.looked : null,
    };
}

// Everything that is shown of now.
function figuresOf(moments) {
    const b = moments.at(-1);
    const a = moments.findLast((m) => b.now_s - m.now_s >= 1.5) || moments[0];
    const seconds = b.now_s - a.now_s || 1;
    const run = (m) => m.tokens.prompt - m.tokens.cached;
    const f = ranksOf(moments);
    return {
        ...f, now: b,
        tokens: since(a.tokens.made, b.tokens.made) / seconds,
        prompt: since(run(a), run(b)) / seconds,
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

const meter = (share) =>
    svg("svg", {class: "meter", viewBox: "0 0 100 4", preserveAspectRatio: "none", "aria-hidden": "true"},
        svg("rect", {width: 100, height: 4, class: "idle"}),
        svg("rect", {width: 100 * share, height: 4, class: "compute"}));

function tiles(f, moments) {
    const {kv, requests} = f.now, used = kv.pages - kv.free;
    return element("div", "tiles",
        tile("Answers, last minute", digits(f.tokens), `tokens/s · prompts ${digits(f.prompt)}`, sparkline(moments)),
        tile("Weights read", digits(f.reads / 1e9), "GB/s"),
        tile("Live neurons", f.live === null ? "–" : percent(f.live), ""),
        tile("KV cache, pages", `${used}`, `of ${kv.pages}`, meter(kv.pages ? used / kv.pages : 0)),
        tile("Requests", `${requests.running}`, `running, ${requests.waiting} waiting`));
}

const legend = () => element("p", "legend",
    ...[...PARTS, ["heads", "attention heads of a layer"], ["neurons", "neurons of a layer"]]
        .map(([part, name]) => element("span", `key ${part}`, name)));

/* ---- the same in figures ---- */

function table(f) {
    const row = (cell, ...texts) => element("tr", "", ...texts.map((t) => element(cell, "", t)));
    const shares = (r) => ["compute", "wait", "wire"].map((p) => percent(r.time[p]));
    const rows = f.ranks.flatMap((r) => r.devices.map((d, i) =>
        row("td", i ? "" : `${r.rank}`, d.name, digits(d.rate / 1e9), percent(Math.min(1, d.busy)),
            ...(i ? ["", "", "", ""] : [...shares(r), `${bytes(r.sends)}/s`]))));
    const head = row("th", "Rank", "Device", "GB/s", "Busy", "Computing", "Waiting", "Wire", "Sends");
    return element("table", "", element("thead", "", head), element("tbody", "", ...rows));
}

/* ---- the view ---- */

function inOneLine(now) {
    const n = now.ranks.length, ranks = n === 1 ? "one rank" : `${n} ranks over ${now.transport}`;
    const room = `${now.sequences} texts of ${now.context} tokens at once`;
    return [now.model, `${now.layers} layers`, ranks, room].join(" · ");
}

// Draws into `place` while shown. `keyWanted()`: the server refused; true: ask again.
export function house(place, keyWanted) {
    const head = element("p", "note"), top = element("div"), drawn = element("div"), box = element("div", "table");
    const more = element("details", "", element("summary", "", "In figures"), box);
    let moments = [], shown = false, timer = 0, asking = false;
    place.append(element("h2", "", "The house"), head, top, drawn, legend(), more);

    const draw = () => {
        const f = figuresOf(moments), width = drawn.clientWidth;
        head.textContent = inOneLine(f.now);
        top.replaceChildren(tiles(f, moments));
        drawn.replaceChildren(picture(f.ranks, f.now.links, f.now.layers, Math.max(280, width)));
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

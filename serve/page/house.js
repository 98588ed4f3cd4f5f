// The house, live: what /house says, once a second while somebody looks, as tiles, a picture and a table.

import {get} from "./server.js";

const NS = "http://www.w3.org/2000/svg";
const KEPT = 61; // moments: a minute and its beginning

function html(name, className, ...children) {
    const e = document.createElement(name);
    if (className)
        e.className = className;
    e.append(...children);
    return e;
}

function svg(name, attributes = {}, ...children) {
    const e = document.createElementNS(NS, name);
    for (const [key, value] of Object.entries(attributes))
        e.setAttribute(key, value);
    e.append(...children);
    return e;
}

/* ---- what happened between two moments ---- */

const digits = (x) => (x >= 100 ? x.toFixed(0) : x >= 10 ? x.toFixed(1) : x.toFixed(2));
const percent = (x) => `${(100 * x).toFixed(x > 0 && x < 0.1 ? 1 : 0)} %`;

function bytes(x) {
    const units = ["B", "kB", "MB", "GB", "TB"];
    let i = 0;
    for (; x >= 1000 && i < units.length - 1; i++)
        x /= 1000;
    return `${i ? digits(x) : x.toFixed(0)} ${units[i]}`;
}

const made = (a, b) => Math.max(0, b.tokens.made - a.tokens.made);

// Shares of the time between two moments that a rank computed, waited and sent; what is left it did nothing.
function timeOf(a, b, seconds) {
    let parts = ["compute_s", "wait_s", "wire_s"].map((k) => Math.max(0, b[k] - a[k]) / seconds);
    const sum = parts.reduce((x, y) => x + y, 0);
    if (sum > 1)
        parts = parts.map((p) => p / sum);
    return {compute: parts[0], wait: parts[1], wire: parts[2], idle: Math.max(0, 1 - sum)};
}

function rankBetween(a, b, seconds) {
    const devices = b.devices.map((d, i) => {
        const before = a.devices[i] || d;
        return {...d, rate: Math.max(0, d.read_bytes - before.read_bytes) / seconds, busy: Math.max(0, d.busy_s - before.busy_s) / seconds};
    });
    return {...b, devices, time: timeOf(a, b, seconds), sends: Math.max(0, b.sent_bytes - a.sent_bytes) / seconds};
}

// The picture's figures: of the last two seconds and more in which the ranks were asked; NULL: one moment alone is known.
function between(moments) {
    const b = moments.at(-1);
    const a = moments.findLast((m) => b.at_s - m.at_s >= 1.5) || moments.find((m) => m.at_s < b.at_s);
    const seconds = a ? b.at_s - a.at_s : 1;
    const before = a || b;
    const looked = b.neurons.looked - before.neurons.looked, live = b.neurons.live - before.neurons.live;
    const ranks = b.ranks.map((r, i) => rankBetween(before.ranks[i] || r, r, seconds));
    return {
        now: b, ranks,
        tokens: made(before, b) / seconds,
        prompt: Math.max(0, b.tokens.prompt - b.tokens.cached - before.tokens.prompt + before.tokens.cached) / seconds,
        reads: ranks.reduce((sum, r) => sum + r.devices.reduce((s, d) => s + d.rate, 0), 0),
        live: looked > 0 ? live / looked : b.neurons.looked > 0 ? b.neurons.live / b.neurons.looked : null,
    };
}

/* ---- tiles ---- */

// Tokens per second over the last minute.
function sparkline(moments) {
    const points = [];
    for (let i = 1; i < moments.length; i++) {
        const seconds = moments[i].at_s - moments[i - 1].at_s;
        if (seconds > 0)
            points.push([moments[i].at_s - moments.at(-1).at_s, made(moments[i - 1], moments[i]) / seconds]);
    }
    const most = Math.max(1, ...points.map((p) => p[1]));
    const line = points.map(([t, v]) => `${(120 * (1 + t / 60)).toFixed(1)},${(30 - 28 * v / most).toFixed(1)}`).join(" ");
    return svg("svg", {class: "spark", viewBox: "0 0 120 32", preserveAspectRatio: "none", "aria-hidden": "true"},
        svg("line", {x1: 0, x2: 120, y1: 31, y2: 31, class: "axis"}),
        ...(points.length > 1 ? [svg("polyline", {points: line})] : []));
}

const tile = (name, value, unit, ...more) =>
    html("div", "tile", html("span", "name", name), html("span", "value", value, html("small", "", ` ${unit}`)), ...more);

function meter(share) {
    return svg("svg", {class: "meter", viewBox: "0 0 100 4", preserveAspectRatio: "none", "aria-hidden": "true"},
        svg("rect", {width: 100, height: 4, class: "idle"}), svg("rect", {width: 100 * share, height: 4, class: "compute"}));
}

function tiles(f, moments) {
    const {kv, requests} = f.now, used = kv.pages ? (kv.pages - kv.free) / kv.pages : 0;
    return html("div", "tiles",
        tile("Tokens, last minute", digits(f.tokens), "tokens/s", sparkline(moments)),
        tile("Prompts", digits(f.prompt), "tokens/s"),
        tile("Weights read", digits(f.reads / 1e9), "GB/s"),
        tile("Live neurons", f.live === null ? "–" : percent(f.live), ""),
        tile("Pages of the KV cache", `${kv.pages - kv.free}`, `of ${kv.pages}`, meter(used)),
        tile("Requests", `${requests.running}`, `running, ${requests.waiting} waiting`));
}

/* ---- the picture ---- */

const ROW = 24, HEAD = 26, BAR = 18, GAP = 14;
const heightOf = (r) => HEAD + ROW * r.devices.length + BAR + 16;

const text = (x, y, className, content, more = {}) => svg("text", {x, y, class: className, ...more}, content);

const titled = (shape, title) => {
    shape.append(svg("title", {}, title));
    return shape;
};

// Which layers a device has: of each the share of its heads above, of its neurons below.
function strip(d, layers, x, y, width) {
    const one = width / Math.max(1, layers), half = 6;
    const g = svg("g", {}, svg("rect", {x, y, width, height: 2 * half, class: "idle"}));
    for (const [first, last, heads, neurons] of d.parts) {
        const at = {x: x + first * one, width: (last - first) * one, height: half};
        const what = `layers ${first} to ${last - 1}: ${percent(heads)} of the heads, ${percent(neurons)} of the neurons`;
        g.append(titled(svg("rect", {...at, y, class: "heads", "fill-opacity": heads && 0.25 + 0.75 * heads}), what),
            titled(svg("rect", {...at, y: y + half, class: "neurons", "fill-opacity": neurons && 0.25 + 0.75 * neurons}), what));
    }
    return g;
}

const PARTS = [["compute", "computing"], ["wait", "waiting for others"], ["wire", "on the wire"], ["idle", "idle"]];

function timeBar(time, x, y, width) {
    const g = svg("g", {});
    let at = x;
    for (const [part, name] of PARTS) {
        const w = width * time[part];
        g.append(titled(svg("rect", {x: at, y, width: w, height: BAR - 4, class: part}), `${name}: ${percent(time[part])}`));
        if (w > 44 && part !== "idle")
            g.append(text(at + w / 2, y + BAR - 8, `on-${part}`, percent(time[part]), {"text-anchor": "middle"}));
        at += w;
    }
    return g;
}

function stageText(r) {
    if (!r.stage)
        return r.devices.some((d) => d.parts.length || d.rows) ? "computes for others" : "takes no part";
    return `layers ${r.stage[0]}–${r.stage[1] - 1}`;
}

function rankCard(r, layers, x, y, width) {
    const name = width < 420 ? 52 : 80, rate = 66, inner = width - 20;
    const g = svg("g", {}, svg("rect", {x, y, width, height: heightOf(r), rx: 8, class: "card"}),
        text(x + 10, y + 18, "rank", `Rank ${r.rank}`), text(x + 68, y + 18, "small", stageText(r)),
        text(x + width - 10, y + 18, "small", r.sends ? `sends ${bytes(r.sends)}/s` : "", {"text-anchor": "end"}));
    r.devices.forEach((d, i) => {
        const at = y + HEAD + ROW * i;
        g.append(text(x + 10, at + 13, "", d.name), strip(d, layers, x + 10 + name, at + 3, inner - name - rate),
            text(x + width - 10, at + 13, "", `${digits(d.rate / 1e9)} GB/s`, {"text-anchor": "end"}));
    });
    g.append(timeBar(r.time, x + 10, y + HEAD + ROW * r.devices.length + 6, inner));
    return g;
}

// An arc on the left between two ranks that talk; as wide as they send.
function linkArc(link, ranks, middles, gutter) {
    const [a, b] = [middles[link.from], middles[link.to]];
    const reach = Math.min(gutter - 6, 12 + Math.abs(b - a) / 12);
    const sent = Math.min(ranks[link.from].sends, ranks[link.to].sends);
    const wide = sent > 0 ? Math.min(6, 1.5 + Math.log10(1 + sent / 1e4)) : 1;
    const what = link.layers ? `for ${link.layers} layers` : "the residual stream";
    return titled(svg("path", {d: `M${gutter} ${a}C${gutter - reach} ${a},${gutter - reach} ${b},${gutter} ${b}`,
        class: sent > 0 ? "link busy" : "link", "stroke-width": wide.toFixed(1)}),
        `ranks ${link.from} and ${link.to}: ${what}`);
}

const sayHouse = (f) => `${f.ranks.length === 1 ? "One rank" : `${f.ranks.length} ranks`}, ${f.now.layers} layers, ` +
    `${digits(f.tokens)} tokens per second. ` + f.ranks.map((r) => `Rank ${r.rank}, ${stageText(r)}: ` +
    `${PARTS.map(([p, name]) => `${percent(r.time[p])} ${name}`).join(", ")}.`).join(" ");

function picture(f, width) {
    const gutter = f.ranks.length > 1 ? Math.min(56, width / 8) : 0;
    const middles = [];
    let y = 1;
    const cards = f.ranks.map((r) => {
        const card = rankCard(r, f.now.layers, gutter + 1, y, width - gutter - 2);
        middles.push(y + heightOf(r) / 2);
        y += heightOf(r) + GAP;
        return card;
    });
    const links = f.now.links.filter((l) => f.ranks[l.from] && f.ranks[l.to]).map((l) => linkArc(l, f.ranks, middles, gutter));
    return svg("svg", {class: "picture", viewBox: `0 0 ${width} ${y - GAP + 2}`, width, height: y - GAP + 2, role: "img",
        "aria-label": sayHouse(f)}, ...links, ...cards);
}

const legend = () => html("p", "legend", ...[...PARTS, ["heads", "attention heads of a layer"], ["neurons", "neurons of a layer"]]
    .map(([part, name]) => html("span", `key ${part}`, name)));

/* ---- the same in figures ---- */

function figures(f) {
    const row = (cell, ...texts) => html("tr", "", ...texts.map((t) => html(cell, "", t)));
    const rows = f.ranks.flatMap((r) => r.devices.map((d, i) => (i
        ? row("td", "", d.name, `${digits(d.rate / 1e9)}`, percent(Math.min(1, d.busy)), "", "", "", "")
        : row("td", `${r.rank}`, d.name, `${digits(d.rate / 1e9)}`, percent(Math.min(1, d.busy)), percent(r.time.compute),
            percent(r.time.wait), percent(r.time.wire), `${bytes(r.sends)}/s`))));
    return html("table", "", html("thead", "", row("th", "Rank", "Device", "GB/s", "Busy", "Computing", "Waiting", "Wire", "Sends")),
        html("tbody", "", ...rows));
}

/* ---- the view ---- */

// Draws into `place` while shown. `refused(status)`: the server wants something; true: then ask again at once.
export function house(place, refused) {
    const head = html("p", "note"), top = html("div"), drawn = html("div", "drawing"), table = html("div", "table");
    const more = html("details", "", html("summary", "", "In figures"), table);
    let moments = [], shown = false, timer = 0, asking = false;
    table.tabIndex = 0;
    place.append(html("h2", "", "The house"), head, top, drawn, legend(), more);

    const draw = () => {
        const f = between(moments), {now} = f;
        head.textContent = `${now.model} · ${now.layers} layers · ${now.ranks.length === 1 ? "one rank" : `${now.ranks.length} ranks`}` +
            `${now.ranks.length > 1 ? ` over ${now.transport}` : ""} · ${now.sequences} texts of ${now.context} tokens at once`;
        top.replaceChildren(tiles(f, moments));
        drawn.replaceChildren(picture(f, Math.max(280, Math.floor(place.clientWidth - 2 * parseFloat(getComputedStyle(place).paddingLeft)))));
        table.replaceChildren(figures(f));
    };

    const take = (now) => {
        const last = moments.at(-1);
        if (last && now.at_s < last.at_s)
            moments = []; // it was started anew
        if (!last || now.at_s !== last.at_s)
            moments.push(now);
        else
            moments[moments.length - 1] = now;
        moments = moments.slice(-KEPT);
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
            next = e.status === 401 ? (await refused(401) ? 0 : -1) : 2000;
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

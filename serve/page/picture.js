// The ranks as a picture, drawn for a width: each with its devices, which layers these have, how fast they read, and
// where its time goes; arcs on the left join those that talk.

import {bytes, digits, percent, svg} from "./dom.js";

const ROW = 24, HEAD = 26, BAR = 18, GAP = 14, RATE = 66;

// Where time goes: a class of the style, and its name.
export const PARTS = [["compute", "computing"], ["wait", "waiting for others"], ["wire", "on the wire"],
    ["idle", "idle"]];

const text = (x, y, className, content, more = {}) => svg("text", {x, y, class: className, ...more}, content);

function titled(shape, title) {
    shape.append(svg("title", {}, title));
    return shape;
}

const shade = (share) => (share > 0 ? 0.25 + 0.75 * share : 0);

// Which layers a device has: of each the share of its heads above, of its neurons below.
function strip(d, layers, x, y, width) {
    const one = width / Math.max(1, layers), half = 6;
    const g = svg("g", {}, svg("rect", {x, y, width, height: 2 * half, class: "idle"}));
    for (const [first, last, heads, neurons] of d.parts) {
        const at = {x: x + first * one, width: (last - first) * one, height: half};
        const what = `layers ${first} to ${last - 1}: ${percent(heads)} of heads, ${percent(neurons)} of neurons`;
        g.append(titled(svg("rect", {...at, y, class: "heads", "fill-opacity": shade(heads)}), what),
            titled(svg("rect", {...at, y: y + half, class: "neurons", "fill-opacity": shade(neurons)}), what));
    }
    return g;
}

function timeBar(time, x, y, width) {
    const g = svg("g");
    let at = x;
    for (const [part, name] of PARTS) {
        const w = width * time[part], what = `${name}: ${percent(time[part])}`;
        g.append(titled(svg("rect", {x: at, y, width: w, height: BAR - 4, class: part}), what));
        if (w > 44 && part !== "idle")
            g.append(text(at + w / 2, y + BAR - 7, `on-${part}`, percent(time[part]), {"text-anchor": "middle"}));
        at += w;
    }
    return g;
}

function roleOf(r) {
    if (r.stage)
        return `layers ${r.stage[0]}–${r.stage[1] - 1}`;
    return r.devices.some((d) => d.parts.length || d.rows) ? "computes for others" : "takes no part";
}

const heightOf = (r) => HEAD + ROW * r.devices.length + BAR + 16;

function card(r, layers, x, y, width) {
    const name = width < 420 ? 52 : 80, inner = width - 20, right = {"text-anchor": "end"};
    const g = svg("g", {}, svg("rect", {x, y, width, height: heightOf(r), rx: 8, class: "card"}),
        text(x + 10, y + 18, "rank", `Rank ${r.rank}`), text(x + 68, y + 18, "small", roleOf(r)),
        text(x + width - 10, y + 18, "small", r.sends ? `sends ${bytes(r.sends)}/s` : "", right));
    r.devices.forEach((d, i) => {
        const at = y + HEAD + ROW * i;
        g.append(text(x + 10, at + 13, "", d.name), strip(d, layers, x + 10 + name, at + 3, inner - name - RATE),
            text(x + width - 10, at + 13, "", `${digits(d.rate / 1e9)} GB/s`, right));
    });
    g.append(timeBar(r.time, x + 10, y + HEAD + ROW * r.devices.length + 6, inner));
    return g;
}

// Between two ranks that talk; the wider, the more both send.
function arc(link, ranks, middles, gutter) {
    const [a, b] = [middles[link.from], middles[link.to]];
    const reach = Math.min(gutter - 6, 12 + Math.abs(b - a) / 12);
    const sent = Math.min(ranks[link.from].sends, ranks[link.to].sends);
    const wide = sent > 0 ? Math.min(6, 1.5 + Math.log10(1 + sent / 1e4)) : 1;
    const what = link.layers ? `for ${link.layers} layers` : "the residual stream";
    const d = `M${gutter} ${a}C${gutter - reach} ${a},${gutter - reach} ${b},${gutter} ${b}`;
    return titled(svg("path", {d, class: sent > 0 ? "link busy" : "link", "stroke-width": wide.toFixed(1)}),
        `ranks ${link.from} and ${link.to}: ${what}`);
}

function inWords(ranks, layers) {
    const parts = (r) => PARTS.map(([p, name]) => `${percent(r.time[p])} ${name}`).join(", ");
    return `${ranks.length === 1 ? "One rank" : `${ranks.length} ranks`}, ${layers} layers. ` +
        ranks.map((r) => `Rank ${r.rank}, ${roleOf(r)}: ${parts(r)}.`).join(" ");
}

// `ranks`: with time, sends, and the rate of each device.
export function picture(ranks, links, layers, width) {
    const gutter = ranks.length > 1 ? Math.min(56, width / 8) : 0;
    const middles = [];
    let y = 1;
    const cards = ranks.map((r) => {
        const c = card(r, layers, gutter + 1, y, width - gutter - 2);
        middles.push(y + heightOf(r) / 2);
        y += heightOf(r) + GAP;
        return c;
    });
    const arcs = links.filter((l) => ranks[l.from] && ranks[l.to]).map((l) => arc(l, ranks, middles, gutter));
    const height = y - GAP + 2;
    return svg("svg", {class: "picture", viewBox: `0 0 ${width} ${height}`, width, height, role: "img",
        "aria-label": inWords(ranks, layers)}, ...arcs, ...cards);
}

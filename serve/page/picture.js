// The ranks as a picture, drawn for a width: each with the PC that it runs on, its devices, which layers these have,
// how fast they read, and where its time goes; arcs on the left join those that talk.

import {bytes, digits, percent, svg} from "./dom.js";

const ROW = 24, HEAD = 26, FOOT = 20, GAP = 14, RATE = 72, BAR = 14;

// Where time goes, and what a device has of a layer: a class of the style, and its name.
export const PARTS = [["compute", "computing"], ["wait", "waiting for others"], ["wire", "on the wire"],
    ["idle", "idle"]];
export const HALVES = [["heads", "attention heads"], ["neurons", "neurons"]];

const text = (x, y, className, content, more = {}) => svg("text", {x, y, class: className, ...more}, content);

function titled(shape, title) {
    shape.append(svg("title", {}, title));
    return shape;
}

const shade = (share) => (share > 0 ? 0.25 + 0.75 * share : 0);

// Which layers a device has: of each the share of its heads above, of its neurons below.
function strip(d, layers, x, y, width) {
    const one = width / Math.max(1, layers), half = BAR / 2;
    const g = svg("g", {}, svg("rect", {x, y, width, height: BAR, class: "idle"}));
    for (const [first, last, heads, neurons] of d.parts) {
        const at = {x: x + first * one, width: (last - first) * one, height: half};
        const what = `layers ${first} to ${last - 1}: ${percent(heads)} of heads, ${percent(neurons)} of neurons`;
        g.append(titled(svg("rect", {...at, y, class: "heads", "fill-opacity": shade(heads)}), what),
            titled(svg("rect", {...at, y: y + half, class: "neurons", "fill-opacity": shade(neurons)}), what));
    }
    return g;
}

// step_s: null where there are no steps.
function timeBar(time, step_s, x, y, width) {
    const g = svg("g");
    let at = x;
    for (const [part, name] of PARTS) {
        const w = width * time[part], share = percent(time[part]);
        const long = step_s === null ? share : `${share} · ${digits(1e3 * step_s * time[part])} ms`;
        g.append(titled(svg("rect", {x: at, y, width: w, height: BAR, class: part}), `${name}: ${long}`));
        if (w > 40 && part !== "idle")
            g.append(text(at + w / 2, y + 11, `on-${part}`, w > 110 ? long : share, {"text-anchor": "middle"}));
        at += w;
    }
    return g;
}

function roleOf(r) {
    if (r.stage)
        return `layers ${r.stage[0]}–${r.stage[1] - 1}`;
    return r.devices.some((d) => d.parts.length || d.rows) ? "computes for others" : "takes no part";
}

function footOf(r) {
    const live = r.live === null ? [] : [`${percent(r.live)} of its neurons live`];
    return [...live, ...(r.sends ? [`sends ${bytes(r.sends)}/s`] : [])].join(" · ");
}

const heightOf = (r) => HEAD + ROW * (r.devices.length + 1) + FOOT;

function card(r, f, x, y, width) {
    const name = width < 420 ? 46 : 70, left = x + 10 + name, right = {x: x + width - 10, "text-anchor": "end"};
    const g = svg("g", {}, svg("rect", {x, y, width, height: heightOf(r), rx: 8, class: "card"}),
        text(x + 10, y + 18, "rank", r.host), text(right.x, y + 18, "small", `rank ${r.rank} · ${roleOf(r)}`, right));
    r.devices.forEach((d, i) => {
        const at = y + HEAD + ROW * i;
        g.append(text(x + 10, at + 14, "", d.name), strip(d, f.now.layers, left, at + 3, width - 20 - name - RATE),
            text(right.x, at + 14, "", `${digits(d.rate / 1e9)} GB/s`, right));
    });
    const at = y + HEAD + ROW * r.devices.length;
    g.append(text(x + 10, at + 14, "", "time"), timeBar(r.time, f.step_s, left, at + 3, width - 20 - name),
        text(x + 10, at + ROW + 11, "small", footOf(r)));
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
        ranks.map((r) => `Rank ${r.rank} on ${r.host}, ${roleOf(r)}: ${[parts(r), footOf(r)].join("; ")}.`).join(" ");
}

// `f`: of house.js: ranks with time, sends, live neurons, and the rate of each device.
export function picture(f, width) {
    const {ranks} = f, {links, layers} = f.now;
    const gutter = ranks.length > 1 ? Math.min(56, width / 8) : 0;
    const middles = [];
    let y = 1;
    const cards = ranks.map((r) => {
        const c = card(r, f, gutter + 1, y, width - gutter - 2);
        middles.push(y + heightOf(r) / 2);
        y += heightOf(r) + GAP;
        return c;
    });
    const arcs = links.filter((l) => ranks[l.from] && ranks[l.to]).map((l) => arc(l, ranks, middles, gutter));
    const height = y - GAP + 2;
    return svg("svg", {class: "picture", viewBox: `0 0 ${width} ${height}`, width, height, role: "img",
        "aria-label": inWords(ranks, layers)}, ...arcs, ...cards);
}

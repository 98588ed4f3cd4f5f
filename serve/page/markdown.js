// Markdown as models write it, as DOM nodes. Text only ever becomes text nodes, so nothing that a model writes is
// markup: no innerHTML, no attribute but links' href, which are http, https or mailto. Pictures are links: nothing
// comes from outside.

import {button, copy, element} from "./dom.js";

const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([^\s`]*)[^`]*$/;
const HEADING = /^ {0,3}(#{1,6})\s+(.*?)\s*#*\s*$/;
const RULE = /^ {0,3}([-*_])[ \t]*(?:\1[ \t]*){2,}$/;
const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])(?:\s+(.*)|\s*)$/;
const QUOTE = /^ {0,3}> ?(.*)$/;
const ALIGNMENTS = /^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$/;
const LINK = /^!?\[([^[\]\n]{0,1000})\]\(\s*<?([^\s<>()]{1,2000}(?:\([^\s<>()]*\)[^\s<>()]*)?)>?(?:\s+"[^"\n]*")?\s*\)/;
const DEEPEST = 16; // lists and quotes in each other

// A block of code with a button that copies it.
function codeBlock(code, language) {
    const act = button("Copy", () => copy(code, act));
    const head = element("div", "code-head", element("span", "", language || "code"), act);
    const pre = element("pre", "", element("code", "", code));
    pre.tabIndex = 0; // to be scrolled by keyboard
    return element("div", "code", head, pre);
}

// http:, https: and mailto: alone; else null.
function safeAddress(address) {
    try {
        const url = new URL(address);
        return ["http:", "https:", "mailto:"].includes(url.protocol) ? url.href : null;
    } catch {
        return null;
    }
}

function link(address, children) {
    const href = safeAddress(address);
    if (!href)
        return element("span", "", ...children);
    const a = element("a", "", ...children);
    a.href = href;
    a.rel = "noopener noreferrer";
    a.target = "_blank";
    return a;
}

// The end of a run of emphasis that begins at `from`, or -1: its mark again, with text before it.
function closing(text, mark, from) {
    for (let at = text.indexOf(mark, from + 1); at >= 0; at = text.indexOf(mark, at + mark.length)) {
        const inside = mark.length === 1 && (text[at + 1] === mark || text[at - 1] === mark);
        const word = mark[0] === "_" && /\w/.test(text[at + mark.length] || "");
        if (!/\s/.test(text[at - 1]) && !inside && !word)
            return at;
    }
    return -1;
}

const EMPHASES = [["***", "strong", "em"], ["**", "strong"], ["__", "strong"], ["~~", "del"], ["*", "em"], ["_", "em"]];

// Emphasis at text[i], like special. `lonely`: marks that nothing closes from some place on, so that they are looked
// for once.
function emphasis(text, i, depth, lonely) {
    for (const [mark, ...names] of EMPHASES) {
        if (!text.startsWith(mark, i) || lonely.has(mark) || /\s/.test(text[i + mark.length] || " ") ||
            (mark[0] === "_" && /\w/.test(text[i - 1] || "")))
            continue;
        const end = closing(text, mark, i + mark.length);
        if (end < 0) {
            lonely.add(mark);
            continue;
        }
        const inner = inline(text.slice(i + mark.length, end), depth + 1);
        return [names.reduceRight((nodes, name) => [element(name, "", ...nodes)], inner)[0], end + mark.length];
    }
    return null;
}

// What begins at text[i], as [node, the index behind it]; null: it is plain text.
function special(text, i, depth, lonely) {
    const rest = () => text.slice(i);
    let m;
    switch (text[i]) {
    case "\\":
        return /[!-/:-@[-`{-~]/.test(text[i + 1] || "") ? [text[i + 1], i + 2] : null;
    case "`": {
        const ticks = /^`+/.exec(rest())[0];
        const end = text.indexOf(ticks, i + ticks.length);
        return end < 0 ? [ticks, i + ticks.length]
            : [element("code", "", text.slice(i + ticks.length, end).replace(/^ (.+) $/, "$1")),
                end + ticks.length];
    }
    case "\n":
        return [element("br"), i + 1];
    case "!":
    case "[":
        m = LINK.exec(rest());
        return m ? [link(m[2], inline(m[1], depth + 1)), i + m[0].length] : null;
    case "<":
    case "h":
        m = /^<?(https?:\/\/[^\s<>"`]{1,2000})>?/.exec(rest());
        if (!m || (text[i] === "h" && /\w/.test(text[i - 1] || "")))
            return null;
        if (text[i] === "h")
            m[0] = m[1] = m[1].replace(/[.,;:!?)\]*_'"]+$/, "");
        return [link(m[1], [m[1]]), i + m[0].length];
    default:
        return emphasis(text, i, depth, lonely);
    }
}

// Nodes of a paragraph's text.
function inline(text, depth = 0) {
    const nodes = [];
    let plain = 0;
    if (depth > DEEPEST)
        return [text];
    const marks = /[\\`\n![<h*_~]/g, lonely = new Set();
    for (let m; (m = marks.exec(text));) {
        const found = special(text, m.index, depth, lonely);
        if (!found) { // a run of marks that are none is one piece of text
            const run = /^[*_~]+/.exec(text.slice(m.index, m.index + 64));
            marks.lastIndex = m.index + (run ? run[0].length : 1);
            continue;
        }
        if (m.index > plain)
            nodes.push(text.slice(plain, m.index));
        nodes.push(found[0]);
        plain = marks.lastIndex = found[1];
    }
    if (plain < text.length)
        nodes.push(text.slice(plain));
    return nodes;
}

function cells(line) {
    return line.trim().replace(/^\|/, "").replace(/(^|[^\\])\|$/, "$1").split(/(?<!\\)\|/)
        .map((c) => c.trim().replace(/\\\|/g, "|"));
}

function table(lines) {
    const head = cells(lines[0]);
    const align = cells(lines[1]).map((c) => (/^:-+:$/.test(c) ? "center" : /-:$/.test(c) ? "right" : ""));
    const row = (texts, name) =>
        element("tr", "", ...head.map((_, i) => element(name, align[i] || "", ...inline(texts[i] || ""))));
    const box = element("div", "table", element("table", "", element("thead", "", row(head, "th")),
        element("tbody", "", ...lines.slice(2).map((l) => row(cells(l), "td")))));
    box.tabIndex = 0;
    return box;
}

const indent = (line) => /^\s*/.exec(line)[0].replace(/\t/g, "    ").length;

// The lines of a list from `from` on: as long as they are items, or are indented as what belongs to one.
function listEnd(lines, from) {
    const base = indent(lines[from]);
    let i = from + 1;
    for (; i < lines.length; i++) {
        const blank = !lines[i].trim();
        const next = blank ? lines[i + 1] : lines[i];
        if (next === undefined || (blank && !next.trim()))
            break;
        const item = ITEM.test(next) && indent(next) >= base && !RULE.test(next);
        if (!item && indent(next) <= base && (blank || RULE.test(next) || HEADING.test(next) || FENCE.test(next)))
            break;
    }
    return i;
}

function list(lines, depth) {
    const base = indent(lines[0]);
    const first = ITEM.exec(lines[0]);
    const ordered = /\d/.test(first[2]);
    const out = element(ordered ? "ol" : "ul");
    if (ordered && parseInt(first[2], 10) !== 1)
        out.start = parseInt(first[2], 10);
    let item = [];
    const close = () => {
        if (item.length)
            out.append(element("li", "", ...blocks(item, depth + 1, true)));
    };
    for (const line of lines) {
        const m = ITEM.exec(line);
        if (m && indent(line) <= base + 1) {
            close();
            item = [m[3] || ""];
        } else {
            item.push(line.slice(Math.min(indent(line), base + first[2].length + 1)));
        }
    }
    close();
    return out;
}

// What ends a paragraph without an empty line before it.
const begins = (line) => FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line) ||
    /^\s{0,3}([-*+]|1[.)])\s/.test(line);

// One block that begins at lines[i], as [node, the line behind it].
function block(lines, i, depth, tight) {
    const line = lines[i];
    let end = i + 1, m;
    if ((m = FENCE.exec(line))) {
        const fence = new RegExp(`^ {0,3}[${m[1][0]}]{${m[1].length},}\\s*$`);
        while (end < lines.length && !fence.test(lines[end]))
            end++;
        return [codeBlock(lines.slice(i + 1, end).join("\n"), m[2]), end + 1];
    }
    if ((m = HEADING.exec(line))) // a page has headings of its own: these are below
        return [element(`h${Math.min(m[1].length + 2, 6)}`, "", ...inline(m[2])), end];
    if (RULE.test(line))
        return [element("hr"), end];
    if (QUOTE.test(line) && depth < DEEPEST) {
        while (end < lines.length && QUOTE.test(lines[end]))
            end++;
        return [element("blockquote", "", ...blocks(lines.slice(i, end).map((l) => QUOTE.exec(l)[1]), depth + 1)), end];
    }
    if (ITEM.test(line) && depth < DEEPEST) {
        end = listEnd(lines, i);
        return [list(lines.slice(i, end), depth), end];
    }
    if (line.includes("|") && end < lines.length && lines[end].includes("-") && ALIGNMENTS.test(lines[end])) {
        for (end++; end < lines.length && lines[end].includes("|") && lines[end].trim();)
            end++;
        return [table(lines.slice(i, end)), end];
    }
    while (end < lines.length && lines[end].trim() && !begins(lines[end]))
        end++;
    const nodes = inline(lines.slice(i, end).map((l) => l.trim()).join("\n"));
    return [tight && i === 0 ? element("span", "", ...nodes) : element("p", "", ...nodes), end];
}

function blocks(lines, depth = 0, tight = false) {
    const nodes = [];
    for (let i = 0, node; i < lines.length;) {
        if (!lines[i].trim()) {
            i++;
            continue;
        }
        [node, i] = block(lines, i, depth, tight);
        nodes.push(node);
    }
    return nodes;
}

// Nodes that show a text.
export function markdown(text) {
    return blocks(text.replace(/\r\n?/g, "\n").split("\n"));
}

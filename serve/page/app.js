// The page: which view, which conversation, and an answer as it comes.

import * as talks from "./talks.js";
import {$, answerOf, button, copy, element} from "./dom.js";
import {chat, get, ServerError} from "./server.js";
import {house} from "./house.js";
import {markdown} from "./markdown.js";
import {askKey, beginSettings} from "./settings.js";

const say = (text) => { $("status").textContent = text; };

/* ---- the conversation that is shown ---- */

let talk = talks.create(); // not kept before it has a message
let running = null;        // the answer that is being written: {id, of: its conversation, stop, message, show}
let editing = -1;          // message that a new question replaces

// A thought, folded; null if there is none.
function thoughtView(thought, busy) {
    const text = element("div", "thought-text");
    const summary = element("summary", "", busy ? "Thinking…" : "Thoughts");
    const view = element("details", "thought", summary, text);
    view.hidden = !thought;
    text.append(...markdown(thought || ""));
    return {view, text, summary};
}

// A message on the page. `show` brings what it has become.
function messageView(message, index) {
    const user = message.role === "user";
    const content = element("div", "content");
    const thought = thoughtView(message.thought, false);
    const note = element("p", "note");
    const acts = element("p", "acts");
    const view = element("article", user ? "user" : "assistant", element("h2", "unseen", user ? "You" : "Model"),
        thought.view, content, note, acts);
    view.dataset.index = index;
    const show = () => {
        content.replaceChildren(...(user ? [message.content] : markdown(message.content)));
        thought.view.hidden = !message.thought;
        thought.text.replaceChildren(...markdown(message.thought || ""));
        thought.summary.textContent = message.content || message.note ? "Thoughts" : "Thinking…";
        note.textContent = message.note || "";
        note.classList.toggle("failed", Boolean(message.failed));
    };
    show();
    return {view, acts, show};
}

const lastOf = (role) => talk.messages.findLastIndex((m) => m.role === role);

// Buttons under the last question and the last answer.
function actsOf(message, index, acts) {
    if (running?.id === talk.id)
        return;
    if (message.role === "user" && index === lastOf("user"))
        acts.append(button("Edit", () => edit(index), "Edit the last question"));
    if (message.role === "assistant") {
        if (message.content)
            acts.append(button("Copy", (e) => copy(message.content, e.target), "Copy the answer"));
        if (index === talk.messages.length - 1)
            acts.append(button("Regenerate", regenerate, "Regenerate the answer"));
    }
    if (message.role === "user" && index === talk.messages.length - 1)
        acts.append(button("Answer", () => answer(), "Answer the question"));
}

function showTalk() {
    const log = $("log"), busy = running?.id === talk.id;
    log.replaceChildren(...talk.messages.map((message, index) => {
        const view = messageView(message, index);
        actsOf(message, index, view.acts);
        if (busy && message === running.message)
            running.show = view.show;
        return view.view;
    }));
    if (!talk.messages.length)
        log.append(element("p", "empty",
            "Nothing leaves this house: the model runs on its PCs, and what you write is kept in this browser."));
    log.setAttribute("aria-busy", String(busy));
    $("send").hidden = busy;
    $("stop").hidden = !busy;
    toEnd(true);
    showList();
}

// Stays at the end unless somebody has scrolled up to read.
function toEnd(always) {
    const log = $("log");
    if (always || log.scrollHeight - log.scrollTop - log.clientHeight < 120)
        log.scrollTop = log.scrollHeight;
}

function keep() {
    if (!talks.save(talk))
        say("The browser has no room to keep this conversation.");
    showList();
}

/* ---- questions and answers ---- */

function ask() {
    const question = $("question").value.trim();
    if (!question || running)
        return;
    if (editing >= 0)
        talk.messages.length = editing;
    endEdit();
    $("question").value = "";
    grow();
    talk.messages.push({role: "user", content: question});
    answer();
}

function regenerate() {
    if (running || talk.messages.at(-1)?.role !== "assistant")
        return;
    talk.messages.pop();
    answer();
}

function edit(index) {
    editing = index;
    $("question").value = talk.messages[index].content;
    $("editing").hidden = false;
    grow();
    $("question").focus();
}

function endEdit() {
    editing = -1;
    $("editing").hidden = true;
}

// What was said, but for questions without an answer: many templates want users and assistants in turn.
function said() {
    const messages = [];
    for (const {role, content} of talk.messages)
        if (content)
            messages.push({role, content});
        else
            messages.pop();
    return messages;
}

function forgetEdit() {
    endEdit();
    $("question").value = "";
    grow();
}

function request() {
    const s = talks.settings.get();
    const messages = said();
    if (s.system.trim())
        messages.unshift({role: "system", content: s.system});
    const r = {messages};
    if (s.temperature !== "" && Number.isFinite(Number(s.temperature)))
        r.temperature = Number(s.temperature);
    if (Number(s.maxTokens) >= 1)
        r.max_tokens = Math.floor(Number(s.maxTokens));
    return r;
}

// Shows a message that grows, no oftener than the browser draws, nor longer than a fifth of the time.
function painter(mine) {
    let due = false, took = 0;
    return () => {
        if (due)
            return;
        due = true;
        setTimeout(() => requestAnimationFrame(() => {
            const began = performance.now();
            due = false;
            mine.show?.();
            took = performance.now() - began;
            if (mine.id === talk.id)
                toEnd();
        }), Math.max(30, 4 * took));
    };
}

function noteOf(message, usage, seconds) {
    const parts = [];
    if (usage)
        parts.push(`${usage.completion_tokens} tokens`);
    if (usage && seconds > 0 && usage.completion_tokens > 1)
        parts.push(`${((usage.completion_tokens - 1) / seconds).toFixed(1)} tokens/s`);
    if (message.ended === "length")
        parts.push("cut off at the limit");
    if (message.ended === "stopped")
        parts.push("stopped");
    return parts.join(" · ");
}

// Reads an answer into the message. It may fail at any point, with what has come so far in it.
async function readAnswer(mine, question, paint) {
    const {message} = mine;
    let usage = null, first = 0, last = 0;
    try {
        for await (const chunk of chat(question, mine.stop.signal)) {
            const choice = chunk.choices?.[0];
            usage = chunk.usage || usage;
            if (choice?.delta?.content || choice?.delta?.reasoning_content) {
                last = performance.now();
                first = first || last;
                message.content += choice.delta.content || "";
                message.thought += choice.delta.reasoning_content || "";
                paint();
            }
            message.ended = choice?.finish_reason || message.ended;
        }
    } finally {
        if (mine.stop.signal.aborted)
            message.ended = "stopped";
        message.note = noteOf(message, usage, (last - first) / 1000);
    }
}

async function answer() {
    const message = {role: "assistant", content: "", thought: "", note: ""};
    const mine = {id: talk.id, of: talk, stop: new AbortController(), message};
    const question = request();
    talk.messages.push(message);
    keep();
    running = mine;
    showTalk();
    say("Answering…");
    let failed = null;
    try {
        await readAnswer(mine, question, painter(mine));
    } catch (e) {
        if (!mine.stop.signal.aborted)
            failed = e;
    }
    running = null;
    ended(mine, failed);
    if (failed instanceof ServerError && failed.status === 401 && await askKey() && talk === mine.of)
        regenerate();
}

function ended(mine, failed) {
    const {message} = mine;
    if (failed) {
        message.failed = true;
        message.note = failed.message;
    }
    if (mine.removed)
        return;
    talks.save(mine.of);
    say(failed ? `Failed: ${failed.message}` : message.ended === "stopped" ? "Stopped." : "The answer is complete.");
    if (mine.of !== talk)
        return showList();
    keep();
    showTalk();
}

function stop() {
    running?.stop.abort();
    $("question").focus();
}

/* ---- the list of conversations ---- */

function showList() {
    $("talk-list").replaceChildren(...talks.all().map((t) => {
        const open = button(t.title, () => openTalk(t.id));
        open.className = "open";
        if (t.id === talk.id)
            open.setAttribute("aria-current", "true");
        return element("li", "", open, button("✎", () => rename(t), `Rename “${t.title}”`),
            button("✕", () => remove(t), `Delete “${t.title}”`));
    }));
}

function change(to) {
    if (talk !== to)
        endEdit();
    talk = to;
    drawer(false);
    view("chat");
    showTalk();
    $("question").focus();
}

function openTalk(id) {
    if (running?.id === id)
        return change(running.of);
    const found = talks.load(id);
    if (found)
        change(found);
}

async function rename(t) {
    if (await answerOf($("name-talk"), $("talk-name"), t.title) !== "name")
        return;
    talks.rename(t.id, $("talk-name").value);
    if (t.id === talk.id)
        [talk.title, talk.named] = [$("talk-name").value.trim(), true];
    showList();
}

async function remove(t) {
    $("delete-what").textContent = t.title;
    if (await answerOf($("delete-talk")) !== "delete")
        return;
    if (running?.id === t.id) {
        running.removed = true;
        running.stop.abort();
    }
    talks.remove(t.id);
    if (t.id === talk.id)
        change(talks.create());
    showList();
}

// On a narrow screen the list is a drawer.
function drawer(open) {
    $("talks").classList.toggle("open", open);
    $("shade").hidden = !open;
    $("menu").setAttribute("aria-expanded", String(open));
    if (open)
        $("new-talk").focus();
}

/* ---- views ---- */

const picture = house($("house"), askKey);

// The address of the house's view. No element has that name: the browser would take the focus there.
const HOUSE = "#/house";
const wantedView = () => (location.hash === HOUSE ? "house" : "chat");

function view(name) {
    for (const v of ["chat", "house"]) {
        $(v).hidden = v !== name;
        $(`show-${v}`).setAttribute("aria-pressed", String(v === name));
    }
    $("talks").hidden = $("menu").hidden = name === "house"; // conversations are the other view's
    picture.show(name === "house");
    history.replaceState(null, "", name === "house" ? HOUSE : location.pathname);
}

function grow() {
    const q = $("question");
    q.style.height = "auto";
    q.style.height = `${Math.min(q.scrollHeight + 2, innerHeight * 0.4)}px`;
}

// The model's name; while it is being loaded, that.
async function showModel() {
    try {
        const models = await get("v1/models");
        $("model").textContent = models.data[0].id;
    } catch (e) {
        $("model").textContent = e.status === 503 ? "the model is being loaded…" : "";
        if (e.status === 401 ? await askKey() : e.status === 503 || e.status === 0)
            setTimeout(showModel, e.status === 401 ? 0 : 2000);
    }
}

function onKey(e) {
    if (e.key !== "Escape" || document.querySelector("dialog[open]"))
        return;
    if (running?.id === talk.id)
        stop();
    else if (editing >= 0) {
        forgetEdit();
    } else if ($("menu").getAttribute("aria-expanded") === "true") {
        drawer(false);
        $("menu").focus();
    }
}

function begin() {
    $("composer").addEventListener("submit", (e) => { e.preventDefault(); ask(); });
    $("question").addEventListener("keydown", (e) => {
        if (e.key === "Enter" && !e.shiftKey && !e.isComposing) {
            e.preventDefault();
            ask();
        }
    });
    $("question").addEventListener("input", grow);
    $("stop").addEventListener("click", stop);
    $("cancel-edit").addEventListener("click", () => { forgetEdit(); $("question").focus(); });
    $("new-talk").addEventListener("click", () => change(talks.create()));
    $("menu").addEventListener("click", () => drawer($("menu").getAttribute("aria-expanded") !== "true"));
    $("shade").addEventListener("click", () => drawer(false));
    $("show-chat").addEventListener("click", () => view("chat"));
    $("show-house").addEventListener("click", () => view("house"));
    document.addEventListener("keydown", onKey);
    addEventListener("storage", showList); // another tab has changed it
    addEventListener("hashchange", () => view(wantedView()));
    beginSettings();
    const newest = talks.all()[0];
    talk = (newest && talks.load(newest.id)) || talk;
    view(wantedView());
    showTalk();
    if (wantedView() === "chat")
        $("question").focus();
    showModel();
}

begin();

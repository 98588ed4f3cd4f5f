// Conversations, kept in this browser alone (localStorage): a list of them, and each under a key of its own.
//
//     {id, title, named, changed, messages: [{role, content, thought, note}]}

const LIST = "hearth.talks", ONE = "hearth.talk.", SETTINGS = "hearth.settings", KEY = "hearth.key";

function read(key, otherwise) {
    try {
        return JSON.parse(localStorage.getItem(key)) ?? otherwise;
    } catch {
        return otherwise;
    }
}

// False: the browser keeps nothing (no room, or forbidden).
function write(key, value) {
    try {
        localStorage.setItem(key, JSON.stringify(value));
        return true;
    } catch {
        return false;
    }
}

export const settings = {
    get: () => ({theme: "system", temperature: "", maxTokens: "", system: "", ...read(SETTINGS, {})}),
    set: (changes) => write(SETTINGS, {...settings.get(), ...changes}),
};

export const key = {
    get: () => read(KEY, ""),
    set: (text) => write(KEY, text),
};

const heads = () => {
    const list = read(LIST, []);
    return Array.isArray(list) ? list.filter((t) => t && typeof t.id === "string") : [];
};

// Newest first: {id, title, changed}.
export const all = () => heads().sort((a, b) => b.changed - a.changed);

export function create() {
    const id = `${Date.now().toString(36)}${Math.random().toString(36).slice(2, 8)}`;
    return {id, title: "", named: false, changed: 0, messages: []};
}

export function load(id) {
    const talk = read(ONE + id, null);
    return talk && Array.isArray(talk.messages) ? talk : null;
}

// Until somebody names it, a conversation is called as it begins.
function titleOf(talk) {
    const first = talk.messages.find((m) => m.role === "user");
    const line = first ? first.content.trim().replace(/\s+/g, " ") : "";
    return line.length > 60 ? `${line.slice(0, 59)}…` : line || "New conversation";
}

export function save(talk) {
    talk.changed = Date.now();
    if (!talk.named)
        talk.title = titleOf(talk);
    const {id, title, changed} = talk;
    const kept = write(ONE + id, talk);
    return write(LIST, [{id, title, changed}, ...heads().filter((t) => t.id !== id)]) && kept;
}

export function rename(id, title) {
    const talk = load(id);
    if (!talk || !title.trim())
        return;
    talk.title = title.trim().slice(0, 200);
    talk.named = true;
    write(ONE + id, talk);
    write(LIST, heads().map((t) => (t.id === id ? {...t, title: talk.title} : t)));
}

export function remove(id) {
    write(LIST, heads().filter((t) => t.id !== id));
    localStorage.removeItem(ONE + id);
}

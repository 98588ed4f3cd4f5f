// Finding and making nodes. Strings among children become text, never markup.

export const $ = (id) => document.getElementById(id);

export function element(name, className, ...children) {
    const e = document.createElement(name);
    if (className)
        e.className = className;
    e.append(...children);
    return e;
}

export function svg(name, attributes = {}, ...children) {
    const e = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes))
        e.setAttribute(key, value);
    e.append(...children);
    return e;
}

// A button whose text says what it does, or `label` where it is too short for that.
export function button(text, act, label) {
    const b = element("button", "", text);
    b.type = "button";
    if (label)
        b.setAttribute("aria-label", label);
    b.addEventListener("click", act);
    return b;
}

// Resolves to the value of the button that closes a dialog; Escape: "".
export function answerOf(dialog, field, value) {
    dialog.returnValue = "";
    if (field)
        field.value = value;
    dialog.showModal();
    if (field)
        field.select();
    return new Promise((resolve) =>
        dialog.addEventListener("close", () => resolve(dialog.returnValue), {once: true}));
}

// Copies a text and says so on the button for a moment.
export async function copy(text, b) {
    const before = b.textContent;
    try {
        await navigator.clipboard.writeText(text);
        b.textContent = "Copied";
    } catch { // not a secure context (plain HTTP from another machine), or forbidden
        b.textContent = "Not allowed";
    }
    setTimeout(() => { b.textContent = before; }, 1500);
}

// Figures as people read them.
export const digits = (x) => x.toFixed(x >= 100 || x === 0 ? 0 : x >= 10 ? 1 : 2);
export const percent = (x) => `${(100 * x).toFixed(x > 0 && x < 0.1 ? 1 : 0)} %`;

export function bytes(x) {
    const units = ["B", "kB", "MB", "GB", "TB"];
    let i = 0;
    for (; x >= 1000 && i < units.length - 1; i++)
        x /= 1000;
    return `${i ? digits(x) : x.toFixed(0)} ${units[i]}`;
}

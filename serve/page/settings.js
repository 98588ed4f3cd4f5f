// What is set once and kept: how to sample, the key, light or dark.

import * as talks from "./talks.js";
import {$, answerOf} from "./dom.js";

const THEMES = ["system", "light", "dark"];
const darkSystem = matchMedia("(prefers-color-scheme: dark)");

function showTheme() {
    const {theme} = talks.settings.get();
    const dark = theme === "dark" || (theme !== "light" && darkSystem.matches);
    document.documentElement.dataset.theme = dark ? "dark" : "light";
    $("theme").textContent = dark ? "☀" : "☾";
    $("theme").setAttribute("aria-label", dark ? "Switch to light" : "Switch to dark");
    $("appearance").value = THEMES.includes(theme) ? theme : "system";
}

function setTheme(theme) {
    talks.settings.set({theme});
    showTheme();
}

async function openSettings() {
    const s = talks.settings.get();
    [$("system").value, $("temperature").value, $("max-tokens").value, $("server-key").value] =
        [s.system, s.temperature, s.maxTokens, talks.key.get()];
    await answerOf($("settings"));
    talks.settings.set({system: $("system").value, temperature: $("temperature").value,
        maxTokens: $("max-tokens").value});
    talks.key.set($("server-key").value.trim());
}

let asking = null;

async function askForKey() {
    const given = await answerOf($("ask-key"), $("asked-key"), talks.key.get());
    asking = null;
    if (given === "use")
        talks.key.set($("asked-key").value.trim());
    return given === "use";
}

// True: there is another key to try. Asks once, whoever wants to know meanwhile.
export const askKey = () => (asking ??= askForKey());

export function beginSettings() {
    $("open-settings").addEventListener("click", openSettings);
    $("appearance").addEventListener("change", (e) => setTheme(e.target.value));
    $("theme").addEventListener("click", () =>
        setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
    darkSystem.addEventListener("change", showTheme);
    showTheme();
}

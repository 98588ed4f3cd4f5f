// The server's API, as the page uses it.

import {key} from "./talks.js";

// What the server said went wrong; status 0: it was not reached.
export class ServerError extends Error {
    constructor(status, message) {
        super(message);
        this.status = status;
    }
}

async function failure(answer) {
    let message = `${answer.status} ${answer.statusText}`;
    try {
        message = (await answer.json()).error.message || message;
    } catch {
        // a body in another form says no more than its status
    }
    return new ServerError(answer.status, message);
}

async function ask(path, options = {}) {
    const headers = {...options.headers};
    if (key.get())
        headers.Authorization = `Bearer ${key.get()}`;
    let answer;
    try {
        answer = await fetch(path, {...options, headers, cache: "no-store"});
    } catch (e) {
        throw e.name === "AbortError" ? e : new ServerError(0, "The server cannot be reached.");
    }
    if (!answer.ok)
        throw await failure(answer);
    return answer;
}

export const get = async (path, signal) => (await ask(path, {signal})).json();

// Events of a stream: the data of each, as text.
async function* events(body) {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    try {
        for (;;) {
            const {value, done} = await reader.read();
            if (done)
                return;
            const lines = (rest + value).split(/\r?\n/);
            rest = lines.pop();
            for (const line of lines)
                if (line.startsWith("data:"))
                    yield line.slice(5).trim();
        }
    } finally {
        reader.cancel().catch(() => {}); // whoever stops reading leaves the server
    }
}

// The chunks of an answer, as the API has them.
export async function* chat(request, signal) {
    const answer = await ask("v1/chat/completions", {
        method: "POST",
        headers: {"Content-Type": "application/json"},
        body: JSON.stringify({...request, stream: true, stream_options: {include_usage: true}}),
        signal,
    });
    for await (const data of events(answer.body)) {
        if (data === "[DONE]")
            return;
        const chunk = JSON.parse(data);
        if (chunk.error)
            throw new ServerError(500, chunk.error.message || "The answer failed.");
        yield chunk;
    }
    throw new ServerError(0, "The answer broke off.");
}

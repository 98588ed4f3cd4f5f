#!/bin/sh
# The paths beside those that talk: what the server says of itself, tokens, embeddings.
. "$(dirname "$0")/library.sh"
need_model
need_command curl python3
serve -c 512 --alias "$(printf 'tested\374')" --parallel 4 # no UTF-8, as a file's name may be

get() { # PATH: $out
    curl -s --max-time 60 -o "$work/out" "$url$1"
    out=$(cat "$work/out")
}

equal "health" 200 "$(code "$url/health")"
get /v1/models
equal "the model" "tested? 512" "$(json "o['data'][0]['id'] + ' ' + str(o['data'][0]['meta']['n_ctx'])")"
get /props
equal "props" "512 4 tested? True" "$(json "' '.join(map(str, (o['default_generation_settings']['n_ctx'], o['total_slots'],
    o['model_path'], 'im_start' in o['chat_template'])))")"

# Tokens are those of hearth tokenize, and their text is what it was, a broken character apart.
ids=$("$hearth" tokenize -m "$model" --ids --no-bos -p "Grüße, <|im_end|> 東京") || fail "hearth tokenize"
post /tokenize '{"content": "Grüße, <|im_end|> 東京"}'
equal "tokens" "$ids" "$(json "' '.join(map(str, o['tokens']))")"
post /tokenize '{"content": "Grüße, <|im_end|> 東京", "parse_special": false, "with_pieces": true}'
equal "pieces" "Grüße, <|im_end|> 東京" "$(json "b''.join(p['piece'].encode() if isinstance(p['piece'], str)
    else bytes(p['piece']) for p in o['tokens']).decode()")"
post /detokenize "{\"tokens\": [$(echo "$ids" | sed 's/ /, /g')]}"
equal "text" "Grüße, <|im_end|> 東京" "$(json "o['content']")"
post /detokenize "{\"tokens\": [$(echo "$ids" | sed 's/ [0-9]*$//; s/ /, /g')]}"
like "a text that ends within a character" "*�" "$(json "o['content']")"
for body in '{}' '{"tokens": "a"}' '{"tokens": [1.5]}' '{"tokens": [-1]}' '{"tokens": [99999999]}'; do
    post /detokenize "$body"
    equal "status of /detokenize $body" 400 "$status"
done
post /tokenize '{"content": 3}'
equal "status of /tokenize of a number" 400 "$status"
for n in 1048576 1048577; do
    { printf '{"content": "'; head -c $n /dev/zero | tr '\0' a; printf '"}'; } > "$work/large"
    code --data-binary "@$work/large" "$url/tokenize"
    echo
done > "$work/codes"
equal "texts of 1 MiB and one byte more" "200 413" "$(xargs < "$work/codes")"
post /tokenize '{"content": " international"}'
token=$(json "o['tokens'][0] if len(o['tokens']) == 1 else 'more than one'") # of 14 bytes
for one in "$token" "$token.0"; do # a number of JSON may be whole either way
    { printf '{"tokens": [%s' "$one"; yes ", $one" | head -n 1250000 | tr -d '\n'; printf ']}'; } > "$work/large"
    equal "tokens of more than 16 MiB: $one" 413 "$(code --data-binary "@$work/large" "$url/detokenize")"
done

# A vector has length 1 and is the same in every form, and whoever it ran beside.
post /v1/embeddings '{"input": "The house is warm."}'
equal "status of an embedding" 200 "$status"
equal "its length" 1.00000 "$(json "'%.5f' % sum(v * v for v in o['data'][0]['embedding'])")"
one=$(json "o['data'][0]['embedding']")
many=$(i=0; while [ $i -lt 19 ]; do printf '"Text %d is another one.", ' $i; i=$((i + 1)); done)
post /v1/embeddings "{\"input\": [$many \"The house is warm.\"]}"
equal "vectors" 20 "$(json "len(o['data'])")"
equal "the vector beside others" "$one" "$(json "o['data'][19]['embedding']")"
post /v1/embeddings '{"input": "The house is warm.", "encoding_format": "base64"}'
equal "the vector as base64 is the same" True "$(json "(lambda b: len(b) // 4 == len($one) and max(abs(x - y) for x, y in
    zip($one, __import__('struct').unpack('<%df' % (len(b) // 4), b))) < 1e-7)(
    __import__('base64').b64decode(o['data'][0]['embedding']))")"
post /v1/embeddings '{"input": "The house is warm.", "pooling": "last"}'
[ "$(json "o['data'][0]['embedding']")" != "$one" ] || fail "the last state is the mean of all"

# What was done is counted, and the house is drawn of it.
post /v1/completions '{"prompt": "Once upon a time", "max_tokens": 20, "temperature": 0, "ignore_eos": true}'
equal "status of a completion" 200 "$status"
get /metrics
like "tokens made" "*llamacpp:tokens_predicted_total 20
*" "$out"
like "a histogram" "*vllm:request_generation_tokens_count{model_name=\"tested?\"}*" "$out"
tries=0
while get /metrics && ! grep -q '^hearth:read_bytes_total{rank="0",device="cpu"} [1-9]' "$work/out" && [ $tries -lt 100 ]; do
    sleep 0.1
    tries=$((tries + 1))
done
like "what the rank has read" '*hearth:read_bytes_total{rank="0",device="cpu"} [1-9]*' "$out"
# A rank's rate is there while it works, and 0 when it rests.
rate_is() { # REGULAR EXPRESSION
    tries=0
    until get /metrics && grep -q "^hearth:read_gb_per_second{rank=\"0\"} $1\$" "$work/out"; do
        tries=$((tries + 1))
        [ $tries -lt 300 ] || { fail "what the rank reads in a second is not like '$1': $out"; return; }
        sleep 0.1
    done
}
printf '{"prompt": "Once", "max_tokens": 480, "temperature": 0, "ignore_eos": true, "n": 4, "stream": true}' |
    curl -sN --data-binary @- "$url/v1/completions" > "$work/stream" &
client=$!
rate_is '[0-9.]*[1-9][0-9]*'
kill "$client"
rate_is 0
like "the share of its neurons that fired" '*hearth:live_share{rank="0"} 1
*' "$out"
get /house
equal "its host" "$(hostname)" "$(json "o['ranks'][0]['host']")"
equal "the house" "1 cpu 0 True" "$(json "' '.join(map(str, (len(o['ranks']), o['ranks'][0]['devices'][0]['name'],
    o['ranks'][0]['stage'][0], o['ranks'][0]['devices'][0]['read_bytes'] > 0)))")"
equal "status of the page" 200 "$(code "$url/")"
like "its policy" "*default-src 'none'*" "$(curl -sI "$url/")"
finish

#!/bin/sh
# The command line without a model: help, versions, wrong options, wrong files.
. "$(dirname "$0")/library.sh"

hearth --version
equal "status of --version" 0 "$status"
like "--version" "hearth [0-9]*.[0-9]*" "$out"
hearth --help
equal "status of --help" 0 "$status"
commands=$out
for command in run chat bench perplexity tokenize inspect probe plan prepare; do
    like "--help" "*  $command *" "$commands"
    hearth $command --help
    equal "status of $command --help" 0 "$status"
    like "$command --help" "Usage: hearth $command *" "$out"
done

hearth
equal "status without a command" 2 "$status"
equal "output without a command" "" "$out"
hearth --bogus
equal "status of an unknown option" 2 "$status"
hearth run --bogus
equal "status of an unknown option of run" 2 "$status"
like "unknown option of run" "*bogus*" "$err"

refuses 2 "*no command 'dance'*" dance
refuses 2 "*no model given*" run -p x
refuses 2 "*no text given*" run -m x
refuses 2 "*-p and -f*" run -m x -p x -f x
refuses 2 "*-n takes*'many'*" run -m x -p x -n many
refuses 2 "*-n takes*'5x'*" run -m x -p x -n 5x
refuses 2 "*-t takes*'0'*" run -m x -p x -t 0
refuses 2 "*-c takes*'99999999999999999999'*" run -m x -p x -c 99999999999999999999
refuses 2 "*--temp takes*'-1'*" run -m x -p x --temp -1
refuses 2 "*--temp takes*'nan'*" run -m x -p x --temp nan
refuses 2 "*--top-p takes*'1.5'*" run -m x -p x --top-p 1.5
refuses 2 "*--ram-budget takes*'8X'*" run -m x -p x --ram-budget 8X
refuses 2 "*--ram-budget takes*'-8G'*" run -m x -p x --ram-budget -8G
refuses 2 "*--kv-budget takes*'8X'*" run -m x -p x --kv-budget 8X
refuses 2 "*--device takes*'tpu'*" run -m x -p x --device tpu
refuses 2 "*--gpu-layers takes*'-1'*" run -m x -p x -ngl -1
refuses 2 "*--vram-budget takes*'8X'*" run -m x -p x --vram-budget 8X
refuses 2 "*--device cpu leaves nothing*" run -m x -p x --device cpu -ngl 3
refuses 2 "*--device cpu leaves nothing*" run -m x -p x --device cpu --gpu-index f
refuses 2 "*--gpu-index and --gpu-layers both*" run -m x -p x -ngl 3 --gpu-index f
refuses 2 "*--plan says what GPUs get*" run -m x -p x --plan p -ngl 3
refuses 2 "*--plan says what GPUs get*" chat -m x --plan p --gpu-index f
refuses 2 "*prepare counts which neurons fire*no --gpu-index*" prepare -m x -p x --gpu-index i
refuses 2 "*--plan says what GPUs get*" plan -m x --plan p --vram-budget 1G
refuses 2 "*--split takes*'halves'*" run -m x -p x --split halves
refuses 2 "*--down takes*'there'*" run -m x -p x --down there
refuses 2 "*--plan stands instead*" run -m x -p x --plan p --shares 1,1
refuses 2 "*--plan stands instead*" plan -m x --plan p --down stage
refuses 2 "*-o takes*'xml'*" plan -m x -o xml
for command in run chat bench perplexity tokenize probe plan prepare; do
    refuses 2 "*'loose' belongs to no option*" $command -m x loose
    refuses 2 "*'loose' belongs to no option*" $command x loose
done
refuses 2 "*$work/none*No such file*" run "$work/none" -p x
refuses 2 "*$work/none*No such file*" plan "$work/none"
refuses 2 "*$work/none*No such file*" tokenize -p x "$work/none"
refuses 2 "*$work/none*No such file*" probe "$work/none" -f "$work/probe.json"
refuses 2 "*-c takes*'3'*" perplexity -m x -p x -c 3
refuses 2 "*-o takes*'xml'*" bench -m x -o xml
refuses 2 "*nothing to measure*" bench -m x -p 0 -n 0
refuses 2 "*-p takes*''*" bench -m x -p 8,,16
refuses 2 "*-p takes*'000000000000000000000000008'*" bench -m x -p 000000000000000000000000008
refuses 2 "*-p takes at most 16 numbers*" bench -m x -p 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17
refuses 2 "*-t takes*'0'*" bench -m x -t 1,0
refuses 2 "*-t takes*'1,2'*" run -m x -p x -t 1,2
refuses 2 "*test of 9 tokens*context of 8*" bench -m x -c 8 -p 4,9 -n 0
refuses 2 "*--chat-template*'nonsense'*" chat -m x --chat-template nonsense
refuses 2 "*no model given*" inspect
refuses 2 "*one model at a time*" inspect a b

refuses 2 "*$work/none*No such file*" run -m x -f "$work/none"
refuses 2 "*$work/none*No such file*" run -m "$work/none" -p x
refuses 2 "*$work/none*No such file*" tokenize -m "$work/none" -p x
refuses 2 "*$work/none*No such file*" inspect "$work/none"
refuses 2 "*$work/none*No such file*" perplexity -m "$work/none" -p x
refuses 2 "*$work*" run -m "$work" -p x # a folder
: > "$work/empty"
refuses 2 "*$work/empty*" inspect "$work/empty"
echo "this is no model at all" > "$work/text"
refuses 2 "*$work/text*" run -m "$work/text" -p x
refuses 2 "*$work/text*" run -m "$work/text" -p x --ranks 3
# An option that the plan cannot have, however it was made.
tiny=$(dirname "$0")/../vectors/tiny-q4_0.gguf
refuses 2 "*the residual stream cannot be on all ranks*" run -m "$tiny" --ranks 2 --split stages --residual all -p x
finish

#!/bin/sh
# What llama.cpp's users type: every row of docs/from-llama.cpp.md does what it says, by its first spelling (by all:
# tests/unit/habits_test.c).
. "$(dirname "$0")/library.sh"
document=$(dirname "$0")/../../docs/from-llama.cpp.md
none=$work/none # no model: who comes so far as to open it has taken the options
hearth run -m "$none" -p x
opens=$err
like "a model that is not there" "hearth: error: *No such file or directory" "$opens"

# COMMAND OPTION...: as it might be typed, with what else the command needs.
try() {
    command=$1
    shift
    case $command:$1 in
    hearth:*) hearth "$@" ;;
    run:-m | run:--model) hearth run -p x "$1" "$none" ;;
    run:-p | run:--prompt) hearth run -m "$none" "$@" ;;
    run:* | perplexity:* | tokenize:*) hearth "$command" -m "$none" -f "$work/text" "$@" ;;
    serve:*) hearth serve -q --port 0 -m "$none" "$@" ;; # it listens before it looks for the model
    *) hearth "$command" -m "$none" "$@" ;;
    esac
}

# COMMAND OPTION HERE, HERE being the third column.
row() {
    word=${2%% *}
    # shellcheck disable=SC2086 # an option and its value
    try "$1" $2
    case $3 in
    '`--help`') like "hearth $1 $2" "Usage: hearth $1 *" "$out" ;;
    '`--version`') like "$1 $2" "hearth [0-9]*" "$out" ;;
    '`--'*) equal "hearth $1 $2" "$opens" "$err" ;;
    'the same'*) equal "hearth $1 $2" "$opens" "$err" ;;
    'changes nothing: '*) equal "hearth $1 $2" "hearth: $word $3
$opens" "$err" ;;
    'not to be had: '*) equal "hearth $1 $2" "hearth: error: $word is $3" "$err" ;;
    *) fail "$document: '$3' says nothing that can be tested" ;;
    esac
}

touch "$work/text"
# The table is the last one: lines "| `option`, `option` | command command | here |".
sed -n '/^| llama.cpp | command/,$ s/^| \(`.*`\) | \([a-z ]*\) | \(.*\) |$/\1|\2|\3/p' "$document" > "$work/rows"
[ "$(wc -l < "$work/rows")" -gt 50 ] || fail "$document: the table has $(wc -l < "$work/rows") rows"
while IFS='|' read -r options commands here; do
    [ "$commands" != any ] || commands=run
    option=${options#?}
    for command in $commands; do
        row "$command" "${option%%\`*}" "$here"
    done
done < "$work/rows"

# Nothing is guessed from its beginning, and no word is cut apart.
for word in --pred --predicto --temperatur --mode --he; do
    refuses 2 "hearth: error: hearth run has no option $word (hearth run --help lists them)" run -m x -p x $word 4
done
refuses 2 "*hearth run has no option -nope (a value stands apart, as in -n VALUE)" run -m x -p x -nope
refuses 2 "*hearth run has no option -qn (a letter stands apart, as in -q -LETTER)" run -m x -p x -qn 5
refuses 2 "*hearth run has no option -y (*" run -m x -p x -y
refuses 2 "*hearth bench has no option --top-k (*" bench -m x --top_k 4
refuses 2 "*--temperature is hearth's --temp, which hearth bench does not have" bench -m x --temperature 4
refuses 2 "*hearth has no option -m before a command (*" -m x run
refuses 2 "*--temp takes*'hot'*" run -m x -p x --temperature=hot
refuses 2 "*-n takes*'many'*" run -m x -p x --predict many
# An option's value is no option, whatever it looks like; nor is what follows "--".
hearth run -p -ngl -m "$none"
equal "run -p -ngl" "$opens" "$err"
hearth run -p x -- "$none"
equal "run -- FILE" "$opens" "$err"
hearth run -n16 -t2 -p x "$none"
equal "run -n16 -t2" "$opens" "$err"
hearth run -fa "$none" -p x -mg=0
equal "run -fa FILE" "hearth: -fa changes nothing: there is one way of attention
hearth: -mg changes nothing: CUDA_VISIBLE_DEVICES says which GPUs a rank sees, --plan what they get
$opens" "$err"

# Help, however it is asked for.
hearth --help
help=$out
for words in help -h; do
    hearth $words
    equal "hearth $words" "$help" "$out"
done
hearth
equal "status of hearth alone" 2 "$status"
equal "hearth alone" "$help" "$err"
hearth chat --help
help=$out
hearth chat -h
equal "hearth chat -h" "$help" "$out"
hearth help chat
equal "hearth help chat" "$help" "$out"
refuses 2 "*no command 'dance'*" help dance
finish

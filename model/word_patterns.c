/* The patterns that vocabularies of byte-level BPE were trained with, by their names in tokenizer.ggml.pre.
 *
 * They match what the published ones match, but possessively: no text makes them backtrack more than a character, so
 * cutting takes linear time. What is a letter or a number is as PCRE2's Unicode tables have it (14.0 in PCRE2 10.42);
 * characters that came later count as neither. */
#include "model/tokenizer_internal.h"

#include <string.h>

/* White space as Unicode has it; PCRE2's \s would add U+180E. */
#define WIDE_SPACES "\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"
#define SPACES "\\x{9}-\\x{d}\\x{20}" WIDE_SPACES
#define SPACES_BUT_NEWLINES "\\x{9}\\x{b}\\x{c}\\x{20}" WIDE_SPACES
#define OTHERS "[^" SPACES "\\p{L}\\p{N}]" /* neither space nor letter nor number */

/* \s*[\r\n]+|\s+(?!\S)|\s+ */
#define BLANKS "(?:[" SPACES_BUT_NEWLINES "]*+[\\r\\n]++)++|[" SPACES "]+(?![^" SPACES "])|[" SPACES "]++"
/* (?i:'s|'t|'re|'ve|'m|'ll|'d), where case is that of ASCII alone, and where it is Unicode's: U+017F is an s. */
#define CONTRACTION "'(?:[sStTmMdD]|[rR][eE]|[vV][eE]|[lL][lL])"
#define WIDE_CONTRACTION "'(?:[sS\\x{17f}tTmMdD]|[rR][eE]|[vV][eE]|[lL][lL])"
#define LINE_ENDS "[\\r\\n]*+"

/* 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S) */
#define WORDS \
    "'(?:[stmd]|re|ve|ll)| ?\\p{L}++| ?\\p{N}++| ?" OTHERS "++|[" SPACES "]+(?![^" SPACES "])"
/* CONTRACTION|[^\r\n\p{L}\p{N}]?[\p{L}MARKS]+|DIGITS| ?[^\s\p{L}MARKS\p{N}]+ENDS|BLANKS */
#define WORDS_AND_LINES(marks, digits, ends) \
    CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}" marks "]++|" digits "| ?[^" SPACES "\\p{L}\\p{N}" marks "]++" ends \
    "|" BLANKS

/* Words that end where a capital follows a small letter. Of U = [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}] and
 * W = [\p{Ll}\p{Lm}\p{Lo}\p{M}]:
 *     [^\r\n\p{L}\p{N}]?U*W+SUFFIX|[^\r\n\p{L}\p{N}]?U+W*SUFFIX|DIGITS| ?[^\s\p{L}\p{N}]+ENDS|BLANKS
 * What U and W share makes U*W+ give back, so here it is written as where it ends: behind the small letters after all
 * of U or, without such, behind the last shared one. The second form is then left with capitals alone. BUT is a
 * look-ahead that every caseless letter must pass. */
#define CAPITALS "\\p{Lu}\\p{Lt}"
#define CASELESS "\\p{Lm}\\p{Lo}\\p{M}"
#define CASED(but, suffix, digits, ends) \
    "[^\\r\\n\\p{L}\\p{N}]?(?:(?:" but "[" CAPITALS CASELESS "])*+\\p{Ll}(?:" but "[\\p{Ll}" CASELESS "])*+|" \
    "(?:[" CAPITALS "]*+(?:" but "[" CASELESS "])++)++)" suffix "|[^\\r\\n\\p{L}\\p{N}]?[" CAPITALS "]++" suffix "|" \
    digits "| ?" OTHERS "++" ends "|" BLANKS
#define CASED_ENDS "[\\r\\n/]*+"

#define HAN_AND_KANA "[\\x{4e00}-\\x{9fa5}\\x{3040}-\\x{30ff}]++"
#define EAST_ASIAN "[\\x{800}-\\x{9fa5}\\x{ac00}-\\x{d7ff}]++"
/* The letters of DeepSeek LLM: those with case, but for Armenian's small ones, Georgian's, and what came late. */
#define LATIN_AND_KIN \
    "(?:(?![\\x{560}-\\x{588}\\x{10c7}-\\x{10ff}\\x{1c80}-\\x{1c88}\\x{2d00}-\\x{2d2d}\\x{a790}-\\x{ab6f}" \
    "\\x{10570}-\\x{105bc}\\x{16e40}-\\x{16e7f}\\x{1d400}-\\x{1df2a}])[\\p{Lu}\\p{Ll}\\p{Lt}])++"

static const struct pretokenizer_kind kinds[] = {
    {.names = " gpt-2 phi-2 mpt olmo jais exaone4 jina-es jina-de gigachat a.x-4.0 mellum trillion granite-docling ",
     .patterns = {WORDS}},
    {.names = " llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral lfm2 midm-2.0 ",
     .patterns = {WORDS_AND_LINES("", "\\p{N}{1,3}+", LINE_ENDS)},
     .ignore_merges = true,
     .add_bos = true},
    {.names = " dbrx smaug-bpe ", .patterns = {WORDS_AND_LINES("", "\\p{N}{1,3}+", LINE_ENDS)}},
    {.names = " chatglm-bpe ", .patterns = {WORDS_AND_LINES("", "\\p{N}{1,3}+", LINE_ENDS)}, .no_bos = true},
    {.names = " glm4 glm5 ",
     .patterns = {WORDS_AND_LINES("", "\\p{N}{1,3}+", LINE_ENDS)},
     .ignore_merges = true,
     .no_bos = true},
    {.names = " minicpm5 ",
     .patterns = {"\\p{N}{1,3}+", WORDS_AND_LINES("", "\\p{N}++", LINE_ENDS)},
     .ignore_merges = true},
    {.names = " smollm starcoder refact command-r codeshell exaone minerva-7b mellum2 ", .patterns = {"\\p{N}", WORDS}},
    {.names = " qwen2 deepseek-r1-qwen megrez stablelm2 hunyuan kormo f2llmv2 solar-open grok-2 ",
     .patterns = {WORDS_AND_LINES("", "\\p{N}", LINE_ENDS)}},
    {.names = " qwen35 ", .patterns = {WORDS_AND_LINES("\\p{M}", "\\p{N}", LINE_ENDS)}},
    {.names = " seed-coder ", .patterns = {WORDS_AND_LINES("", "\\p{N}", "")}},
    {.names = " gpt-4o llama4 kanana2 talkie minimax-m2 ",
     .patterns = {CASED("", "(?:" WIDE_CONTRACTION ")?", "\\p{N}{1,3}+", CASED_ENDS)}},
    {.names = " tekken ",
     .patterns = {CASED("", "", "\\p{N}", CASED_ENDS)},
     .ignore_merges = true,
     .add_bos = true},
    {.names = " kimi-k2 ",
     .patterns = {"\\p{sc:Han}++|" CASED("(?!\\p{sc:Han})", "(?:" WIDE_CONTRACTION ")?", "\\p{N}{1,3}+", LINE_ENDS)}},
    {.names = " deepseek-v3 hunyuan-dense joyai-llm hy_v4 ",
     .patterns = {"\\p{N}{1,3}+", HAN_AND_KANA,
                  "[!-/:-@\\[-`{-~][A-Za-z]++|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]++| ?[\\p{P}\\p{S}]++" LINE_ENDS
                  "|" BLANKS}},
    {.names = " deepseek-llm ",
     .patterns = {"[\\r\\n]", "[" SPACES "]?" LATIN_AND_KIN,
                  "[" SPACES "]?[!-/:-~\\x{ff01}-\\x{ff0f}\\x{ff1a}-\\x{ff5e}\\x{2018}-\\x{201f}\\x{3000}-\\x{3002}]++",
                  "(?<![" SPACES "])[" SPACES "]++\\z", EAST_ASIAN, "\\p{N}++"}},
    {.names = " deepseek-coder ",
     .patterns = {"[\\r\\n]", "[" SPACES "]?\\p{L}++", "[" SPACES "]?\\p{P}++", EAST_ASIAN, "\\p{N}"}},
    {.names = " youtu ",
     .patterns = {"[\\x{ac00}-\\x{d7a3}\\x{3131}-\\x{318e}]++|"
                  "[\\x{ff01}\\x{2026}\\x{201c}\\x{201d}\\x{2018}\\x{2019}\\x{2014}\\x{ff1a}\\x{ff1b}\\x{ff0c}"
                  "\\x{3001}-\\x{303f}\\x{fe30}-\\x{fe4f}]++|[\\x{3105}-\\x{312f}]++|" HAN_AND_KANA,
                  CASED("", "(?:" WIDE_CONTRACTION ")?", "\\p{N}", CASED_ENDS)},
     .ignore_merges = true},
    {.names = " gemma4 ", .patterns = {"\\n++"}, .add_bos = true, .no_bos = true, .characters = true},
    {.names = " falcon ", .patterns = {"[\\p{P}$+<=>^~|`]++", WORDS, "[0-9]{3}"}},
    /* Files from before there was tokenizer.ggml.pre. */
    {.names = " default ", .patterns = {"[\\p{P}$+<=>^~|]++", WORDS, "\\p{N}++", "[0-9]{3}"}},
};

const struct pretokenizer_kind *pretokenizer_kind(const char *name, size_t n)
{
    char word[34] = " ";
    if (n == 0 || n > 32 || memchr(name, ' ', n) || memchr(name, 0, n))
        return NULL;
    memcpy(word + 1, name, n);
    word[n + 1] = ' ';
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (memmem(kinds[i].names, strlen(kinds[i].names), word, n + 2))
            return &kinds[i];
    return NULL;
}

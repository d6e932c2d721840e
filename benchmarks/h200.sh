#!/usr/bin/env bash
# What a GPU makes of hfgrow, in ten minutes at most; nothing is downloaded.
#
#   benchmarks/h200.sh [OUT]          # one H200; OUT is $OUT where it is not given
#   benchmarks/h200.sh --toy [OUT]    # the same parts on a CPU at toy sizes: do they run at all
#
# A stack against scratch at equal FLOPs, learned growth, and `hfgrow train` beside transformers'
# Trainer at 0.13B, 0.36B and 1.1B. Each part has its own time limit, but for --toy, and one that
# fails leaves what the others found: OUT/results.md and OUT/results.json are written anew after
# each, and the script ends with 1. PYTHON names the interpreter: it needs torch, transformers,
# accelerate and pydantic, and hfgrow not installed. LIMIT_S is the limit of all together, 580.
set -uo pipefail

toy= out=
for word; do if [ "$word" = --toy ]; then toy=yes; else out=$word; fi; done
out=${out:-${OUT:-}}
[ -n "$out" ] || { sed -n '4,5s/^# *//p' "$0" >&2; exit 2; }
mkdir -p "$out" && out=$(cd "$out" && pwd) || exit 1
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
python=${PYTHON:-$([ -x .venv/bin/python ] && echo "$PWD/.venv/bin/python" || command -v python3)}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
start=$SECONDS last=${LIMIT_S:-580} failed=0
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=true PYTHONUNBUFFERED=1
export PATH="$(dirname "$python"):$PATH" PYTHONPATH="${PYTHONPATH:-}"

if ! "$python" -c 'import hfgrow_cli' 2>/dev/null; then
    mkdir "$scratch/source"
    cp -r hfgrow cli docs recipes pyproject.toml README.md LICENSE "$scratch/source"
    "$python" -m pip install -q --no-index --no-deps --no-build-isolation --no-compile \
        --target "$scratch/site" "$scratch/source" || exit 1
    PYTHONPATH="$scratch/site:$PYTHONPATH" PATH="$scratch/site/bin:$PATH"
fi
"$python" -c 'import accelerate, hfgrow_cli, pydantic, torch, transformers, yaml' || exit 1

if [ -n "$toy" ]; then
    device=cpu sizes=toy size=toy steps=2 text_nbytes=300000 cpu=--cpu
    entries=(hfgrow Trainer) smallest= learn=(--steps 2 --batch-tokens 512 --sequence-length 128)
    export CUDA_VISIBLE_DEVICES=
else
    device=cuda sizes="1.1B 0.13B 0.36B" size=h200 steps=8 text_nbytes=100000000 cpu=
    entries=("hfgrow, compiled" "Trainer, compiled") smallest=0.13B learn=(--steps 100)
    "$python" -c 'import torch; torch.zeros(1, device="cuda")' || exit 1
fi

part() {  # NAME SECONDS COMMAND...: what it says is kept, and when it ended
    local name=$1 limit=$2 begun=$SECONDS left=$((last - SECONDS + start))
    shift 2
    [ -z "$toy" ] && [ "$limit" -le "$left" ] || limit=$left
    if [ "$limit" -gt 0 ]; then
        echo "== $name, at most $limit s" >&2
        timeout -k 15 "$limit" "$@" >"$scratch/$name.said" 2>"$scratch/$name.log"
    else
        echo "no time was left" >"$scratch/$name.log"; false
    fi
    local code=$?
    echo "$code $((SECONDS - begun))" >"$scratch/$name.ended"
    cat "$scratch/$name.log" >&2
    cat "$scratch"/*.log >"$out/log.txt"
    "$python" -m benchmarks.h200 "$scratch" "$out" && [ "$code" = 0 ] || failed=$((failed + 1))
}

text() {  # the sources of Python's library, as documents: some 30 MB, so arms read them more than once
    local library
    library=$("$python" -c 'import sysconfig; print(sysconfig.get_path("stdlib"))') || return
    find -L "$library" -name '*.py' -not -path '*-packages/*' -print0 | sort -z |
        while IFS= read -r -d '' file; do
            iconv -c -f UTF-8 -t UTF-8 "$file"; printf '\n<|endoftext|>\n'
        done | head -c "$text_nbytes" >"$scratch/library.txt"
    hfgrow data prepare "$scratch/library.txt" --tokenizer demo --out "$scratch/tokens" --json
}

export -f text; export python scratch text_nbytes
tokens=$scratch/tokens
part text 40 bash -c text
part study 160 hfgrow study benchmarks/h200-study.yaml --size "$size" $cpu --out "$scratch/study" \
    --set "data.train=[{path: $tokens, split: 'train[:99%]'}]" \
    --set "data.validation=[{path: $tokens, split: 'train[99%:]'}]" --json
shallow=$(find "$scratch/study/runs" -path '*shallow*/final' 2>/dev/null | head -n 1)
part learn 50 hfgrow learn "${shallow:-demo}" --g 4 --init ligo --data "$tokens" "${learn[@]}" \
    --out "$scratch/learned" --json
# When time is short, the largest model is what is wanted most.
declare -A limits=([1.1B]=170 [0.36B]=70 [0.13B]=90)
for one in $sizes; do
    # The smallest runs without compiled layers too: what they bring, and a rate if they fail.
    plain=()
    [ "$one" != "$smallest" ] || plain=(hfgrow Trainer)
    part "train-$one" "${limits[$one]:-200}" "$python" -m benchmarks.train --folder "$scratch/$one" --device $device \
        --sizes "$one" --entries "${entries[@]}" "${plain[@]}" --steps $steps --rounds 1 \
        --json "$scratch/train-$one.json"
    rm -rf "${scratch:?}/$one"
done
cat "$out/results.md"
[ "$failed" = 0 ] || { echo "parts that failed: $failed" >&2; exit 1; }

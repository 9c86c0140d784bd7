# Completion of certgate for bash: . <(certgate completion bash)
# What it offers is what the program itself says (`certgate completion words`, `--help`).

_certgate_from_help() {   # options, or the verbs below this one, as its help spells them
  local help
  help=$("${COMP_WORDS[0]}" "$1" --help 2>/dev/null)
  if [[ $2 == -* ]]; then
    grep -oE -- '(^|[^[:alnum:]-])--[a-z][a-z-]*' <<<"$help" | grep -oE -- '--[a-z-]+' | sort -u
  else
    grep -oE "certgate $1 [a-z]+" <<<"$help" | cut -d' ' -f3 | sort -u
  fi
}

_certgate() {
  local cur=${COMP_WORDS[COMP_CWORD]} whole i word
  local -a before=()
  # readline cuts an expression without quotes at = < > and :, so its pieces are put together again.
  for ((i = 1; i <= COMP_CWORD; ++i)); do
    word=${COMP_WORDS[i]}
    if ((i > 2)) && [[ ${before[-2]} == --where && ($word == [=\<\>:]* || ${before[-1]} == *[=\<\>:]) ]]; then
      before[-1]+=$word
    else
      before+=("$word")
    fi
  done
  [[ $cur == [=\<\>:]* ]] && cur=
  whole=${before[-1]#[\"\']}
  before[-1]=$whole
  mapfile -t COMPREPLY < <("${COMP_WORDS[0]}" completion words -- "${before[@]}" 2>/dev/null)
  if ((${#before[@]} > 1)) && [[ ${before[-2]} == --where ]]; then
    compopt -o nospace 2>/dev/null
    cur=${cur#[\"\']}
    COMPREPLY=("${COMPREPLY[@]#"${whole%"$cur"}"}")
  elif ((${#COMPREPLY[@]} == 0)) && ((COMP_CWORD > 1)) && [[ ${before[0]} != audit ]]; then
    if [[ $cur == -* ]] || ((COMP_CWORD == 2)); then
      mapfile -t COMPREPLY < <(compgen -W "$(_certgate_from_help "${before[0]}" "$cur")" -- "$cur")
    fi
  fi
}

complete -o default -F _certgate certgate

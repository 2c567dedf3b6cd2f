# The npm packages of a folder's package-lock.json, kept in the cache (cache.sh, to be sourced before).

install_npm_packages() {
  cp -L "$npm_folder/package.json" "$npm_folder/package-lock.json" "$1"
  # Packages' own scripts are not run.
  npm ci --prefix "$1" --ignore-scripts --no-audit --no-fund > "$1/npm.log" 2>&1 \
    || { tail -n 20 "$1/npm.log" >&2; fail "npm ci failed"; }
}

# npm_packages FOLDER: sets `entry` to the folder that has their node_modules.
npm_packages() {
  npm_folder=$1
  need node nodejs
  need npm npm
  cached npm "$(cat "$1/package.json" "$1/package-lock.json" | sha256sum | cut -d ' ' -f 1)" \
    install_npm_packages
}

# The real programs that the tests speak to, and their Debian packages.

# program:package
PEERS="
Orthanc:orthanc
echoscu:dcmtk
dcmqrscp:dcmtk
dciodvfy:dicom3tools
genisoimage:genisoimage
isoinfo:genisoimage
xorriso:xorriso
7z:p7zip-full
mariadbd:mariadb-server
nginx:nginx-light
chromium:chromium
"
# Debian starts a daemon as soon as it is installed, unless this program says no (invoke-rc.d(8)).
POLICY=/usr/sbin/policy-rc.d
# It has no program of its own.
DICOMWEB_PLUGIN=/usr/share/orthanc/plugins/libOrthancDicomWeb.so

# Print the packages that are missing, one on a line.
missing_packages() {
    local peer
    local PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
    {
        for peer in $PEERS; do
            command -v "${peer%%:*}" >/dev/null 2>&1 || echo "${peer#*:}"
        done
        [ -e "$DICOMWEB_PLUGIN" ] || echo orthanc-dicomweb
    } | sort -u
}

# Print how to run a command as root: nothing for root, sudo where it asks for no password; fails otherwise.
root_command() {
    if [ "$(id -u)" = 0 ]; then
        return
    fi
    sudo -n true 2>/dev/null && echo "sudo -n"
}

# Install what is missing by apt-get, as far as it may and can. Never fails: the caller looks what is missing.
# A subshell: its trap takes the policy away again, however it ends.
install_peers() (
    missing=$(missing_packages)
    if [ -z "$missing" ] || ! command -v apt-get >/dev/null 2>&1; then
        exit 0
    fi
    if ! root=$(root_command); then
        echo "Not root, and sudo asks for a password: nothing is installed."
        exit 0
    fi
    echo "Installing the peers of the tests:" $missing
    if [ ! -e "$POLICY" ]; then
        trap '$root rm -f "$POLICY"' EXIT
        printf '#!/bin/sh\nexit 101\n' | $root tee "$POLICY" >/dev/null
        $root chmod 755 "$POLICY"
    fi
    $root apt-get update --quiet=2 || true
    # One by one: a package that this release doesn't have must not keep the others out.
    for package in $missing; do
        $root env DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet=2 --no-install-recommends \
            "$package" >/dev/null || echo "apt-get can't install $package."
    done
)

# Tell whether a docker engine answers.
has_docker() {
    command -v docker >/dev/null 2>&1 && docker info >/dev/null 2>&1
}

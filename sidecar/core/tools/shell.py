"""What a command line will do: the effects of its programs, taken together.

A program that is not listed executes something: irreversible, though the tool is known. A program's name that is worked
out at run time, a script fed to a shell, or a line beyond the bounds cannot be judged at all: not `known`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from sidecar.core.reading import Effect
from sidecar.core.tools.requests import effect_of_http, effect_of_sql
from sidecar.core.tools.shell_lines import Command, read_command_line
from sidecar.core.tools.words import (
    CHANGES,
    LASTS,
    MAKES,
    OUT,
    READS,
    RUNS,
    SENDS_OUT,
    THINKS,
    both,
    effect_of,
    listed,
    split,
)

_BUDGET: Final = 512
"""Commands that are judged for one line, with those inside others."""
_DEPTH: Final = 4

_OPAQUE: Final = Effect(runs=True)
_HARMLESS: Final = Effect(runs=True, reversible=True, known=True)
_INSTALLS: Final = both(OUT, both(RUNS, CHANGES))
_UPLOADS: Final = both(SENDS_OUT, CHANGES)

_SHELLS: Final = listed("sh bash zsh dash ksh ash fish pwsh powershell cmd")
_INTERPRETERS: Final = listed("python python2 python3 node perl ruby php lua deno bun java go cargo make")
_CLOUD: Final = listed("aws gcloud az gh glab heroku doctl oci ibmcloud vault terraform helm fly vercel gsutil")
_DATABASES: Final = listed("sqlite3 psql mysql mariadb duckdb clickhouse-client sqlcmd bq snowsql")
_WRAPPERS: Final = listed("""
    sudo doas env command builtin exec nice ionice time xargs stdbuf strace unbuffer busybox caffeinate watch parallel
    nohup setsid systemd-run timeout flock chroot
""")
"""Programs that run another one."""
_WRAPPERS_OWN: Final = listed("timeout flock chroot")
"""Those with one argument of their own before it."""
_WRAPPERS_LASTING: Final = listed("nohup setsid systemd-run")
_OPTIONS_WITH_VALUE: Final = listed("-u -n -I -P -L -d -s -g -k --user --group --signal")


def _table(rows: dict[str, Effect]) -> dict[str, Effect]:
    return {name: effect for names, effect in rows.items() for name in names.split()}


_PROGRAMS: Final = _table(
    {
        """
        cat ls ll dir head tail less more grep egrep fgrep rg ag wc stat file du df ps top htop pwd whoami id groups
        printenv date uname hostname uptime free which whereis type diff cmp comm sort uniq cut tr nl tac rev column
        paste join fold fmt jq yq basename dirname realpath readlink xxd hexdump od strings md5sum sha1sum sha256sum
        sha512sum cksum tree lsof netstat ss lsblk lscpu pgrep pidof jobs w who last history man info locale test [ [[
        seq journalctl dmesg zcat zgrep bzcat xzcat lsattr getfacl getent ipconfig ver tasklist findstr get-content
        get-childitem printf base64 base32
        """: READS,
        """
        echo cd pushd popd true false : sleep wait export set unset alias local read return exit shift umask
        """: THINKS,
        "dig nslookup host ping ping6 traceroute tracepath whois mtr resolvectl w3m lynx links": OUT,
        """
        mkdir touch cp copy mv move ln zip unzip gzip gunzip bzip2 xz zstd 7z split patch iconv pandoc convert ffmpeg
        ren rename xcopy robocopy new-item set-content out-file add-content copy-item move-item mktemp black ruff
        prettier gofmt isort
        """: MAKES,
        """
        rm rmdir unlink shred srm wipe truncate dd mkfs fdisk parted kill pkill killall skill shutdown reboot halt
        poweroff init chmod chown chgrp chattr setfacl userdel groupdel iptables nft ufw umount swapoff sysctl modprobe
        insmod rmmod hostnamectl timedatectl ip ifconfig route dpkg rpm apt apt-get yum dnf pacman apk brew snap pip
        pip3 pipx uv poetry npm pnpm yarn npx gem del erase rd taskkill format diskpart cipher wevtutil remove-item
        stop-process set-executionpolicy logrotate logger fuser renice
        """: CHANGES,
        """
        mail mailx mutt sendmail msmtp swaks nc ncat netcat socat telnet ftp sftp scp tftp rclone curlftpfs smbclient
        write wall notify-send twine lp lpr certutil bitsadmin send-mailmessage
        """: SENDS_OUT,
        """
        at batch useradd adduser usermod groupadd passwd chpasswd visudo ssh-keygen ssh-copy-id ssh-agent ssh-add screen
        tmux disown schtasks reg update-rc.d chkconfig launchctl new-service register-scheduledtask gpasswd htpasswd
        """: LASTS,
        "ssh mosh rsh psexec winrs invoke-command": both(RUNS, SENDS_OUT),
    }
)

_PACKAGES: Final = _table(
    {
        "list ls show view search outdated freeze info why policy --version -V tree": READS,
        "publish upload": _UPLOADS,
        "install add i ci update upgrade": _INSTALLS,
        "run test start exec build check": both(RUNS, CHANGES),
    }
)
_SUBCOMMANDS: Final = {
    "git": _table(
        {
            "status log diff show blame describe ls-files ls-tree rev-parse grep shortlog reflog cat-file": READS,
            "fetch clone ls-remote": both(OUT, MAKES),
            "pull": both(OUT, CHANGES),
            "add commit switch stash init branch tag mv cherry-pick worktree apply am notes": MAKES,
            "push send-email send-pack request-pull": _UPLOADS,
            "remote submodule": LASTS,
        }
    ),
    "docker": _table(
        {
            "ps images logs inspect stats version info top port diff history": READS,
            "push": SENDS_OUT,
            "pull": both(OUT, MAKES),
            "build": both(RUNS, MAKES),
            "run exec start restart compose": both(RUNS, CHANGES),
        }
    ),
    "kubectl": _table(
        {
            "get describe logs top explain version diff cluster-info api-resources": READS,
            "exec run debug attach": both(RUNS, CHANGES),
            "cp port-forward proxy": SENDS_OUT,
        }
    ),
    "systemctl": _table(
        {
            "status is-active is-enabled is-failed list-units list-timers list-unit-files show cat": READS,
            "enable link": LASTS,
        }
    ),
    "crontab": {"-l": READS},
    "ip": _table({"addr a link route": READS}),
    **dict.fromkeys(
        ("npm", "pnpm", "yarn", "pip", "pip3", "cargo", "gem", "apt", "apt-get", "brew", "poetry", "uv"), _PACKAGES
    ),
}
_OTHER_SUBCOMMAND: Final = {"crontab": LASTS}
"""What the rest of a program's subcommands do; they change something where it is not told."""
_GIT_LASTING: Final = ("core.", "credential", "url.", "alias.", "remote.", "filter.", "http.")

_LASTING_PATHS: Final = (
    "/cron", "crontab", "authorized_keys", "/systemd/", "/init.d/", "rc.local", ".git/hooks", ".githooks", "/sudoers",
    "/launchagents", "/launchdaemons", "/autostart/", "/startup/", "/profile.d/", ".ssh/", "sitecustomize",
)  # fmt: skip
_LASTING_FILES: Final = listed(
    ".bashrc .bash_profile .bash_login .profile .zshrc .zprofile .zshenv .netrc .npmrc .pypirc"
)
_SYSTEM_PATHS: Final = ("/etc/", "/usr/", "/bin/", "/sbin/", "/boot/", "/lib/", "/sys/", "/proc/", "/dev/", "/var/log/")
_NO_PATHS: Final = listed("/dev/null /dev/stdout /dev/stderr /dev/fd")
_CARRIES: Final = (
    "-d", "-F", "-T", "--data", "--form", "--upload-file", "--json", "--post-data", "--post-file", "--body-data",
    "--body-file", "-Body", "-body", "-InFile", "-infile",
)  # fmt: skip


def effect_of_command_line(text: str) -> Effect:
    """What a command line or script does; always `runs`."""
    return _Judge().line(text, 0)


def is_program(name: str) -> bool:
    """Whether it is the name of a listed program."""
    return name in _PROGRAMS or name in _SUBCOMMANDS or name in _CLOUD or name in _DATABASES or name in _SPECIAL


def effect_of_path(path: str) -> Effect:
    """What writing to a file does: reversible, but not in the system's folders; standing where it is run later."""
    path = path[:1024].lower().replace("\\", "/")
    if path.startswith(("/dev/tcp/", "/dev/udp/")):
        return SENDS_OUT
    if path in _NO_PATHS:
        return THINKS
    if path.rpartition("/")[2] in _LASTING_FILES or any(part in path for part in _LASTING_PATHS):
        return LASTS
    return CHANGES if path.startswith(_SYSTEM_PATHS) else MAKES


def _program(word: str) -> str:
    return word.replace("\\", "/").rpartition("/")[2].lower().removesuffix(".exe")


def _plain(words: tuple[str, ...]) -> list[str]:
    return [word for word in words if not word.startswith("-")]


class _Judge:
    """Judges one line; its budget bounds the work."""

    def __init__(self) -> None:
        self.budget = _BUDGET

    def line(self, text: str, depth: int) -> Effect:
        line = read_command_line(text)
        effect = _HARMLESS if line.complete and line.commands else _OPAQUE
        for command in line.commands:
            effect = both(effect, self.command(command, depth))
        self.budget -= len(text) // 64
        return effect

    def command(self, command: Command, depth: int) -> Effect:
        effect = _OPAQUE if command.open else self.words(command.words, depth)
        if command.background and command.words:
            effect = both(effect, LASTS)
        for path in command.writes[:16]:
            effect = both(effect, effect_of_path(path))
        emptied = command.writes and (not command.words or command.words[0] == ":")
        return both(effect, CHANGES) if emptied else effect

    def words(self, words: tuple[str, ...], depth: int) -> Effect:
        self.budget -= 1
        if self.budget < 0 or depth > _DEPTH:
            return _OPAQUE
        if not words:
            return THINKS
        name, rest = _program(words[0]), words[1:]
        if name in _WRAPPERS:
            return self.wrapped(name, rest, depth)
        if name in _SHELLS or name in ("eval", "source", ".", "ssh"):
            return self.shell(name, rest, depth)
        if name == "find":
            return self.find(rest, depth)
        return _of_program(name, rest)

    def wrapped(self, name: str, rest: tuple[str, ...], depth: int) -> Effect:
        own, at = name in _WRAPPERS_OWN, 0
        while at < len(rest):
            if rest[at].startswith("-"):
                at += 2 if rest[at] in _OPTIONS_WITH_VALUE else 1
            elif "=" in rest[at] and name in ("env", "sudo"):
                at += 1
            elif own:
                own, at = False, at + 1
            else:
                break
        if at >= len(rest):
            return READS if name in ("env", "xargs", "time") else RUNS
        effect = self.words(rest[at:], depth + 1)
        return both(effect, LASTS) if name in _WRAPPERS_LASTING else effect

    def shell(self, name: str, rest: tuple[str, ...], depth: int) -> Effect:
        if name == "eval":
            return self.line(" ".join(rest), depth + 1)
        if name == "ssh":
            command = _behind_host(rest)
            there = both(RUNS, SENDS_OUT)
            return both(there, self.line(" ".join(command), depth + 1)) if command else there
        for index, word in enumerate(rest[:-1]):
            if word.lower() in ("/c", "-command") or (word.startswith("-") and word[1:2] != "-" and "c" in word):
                return self.line(" ".join(rest[index + 1 :]) if name == "cmd" else rest[index + 1], depth + 1)
        named = [word for word in _plain(rest) if word != "/dev/fd"]
        return RUNS if named else _OPAQUE  # a script in a file; or one that comes from a pipe

    def find(self, rest: tuple[str, ...], depth: int) -> Effect:
        effect = READS
        for index, word in enumerate(rest):
            if word == "-delete":
                effect = both(effect, CHANGES)
            elif word in ("-fprint", "-fprintf", "-fls"):
                effect = both(effect, MAKES)
            elif word in ("-exec", "-execdir", "-ok", "-okdir"):
                end = next((at for at in range(index + 1, len(rest)) if rest[at] in (";", "+")), len(rest))
                effect = both(effect, self.words(rest[index + 1 : end], depth + 1))
                if end == len(rest):
                    break  # all that follows belongs to that command
        return effect


def _behind_host(rest: tuple[str, ...]) -> tuple[str, ...]:
    at = 0
    while at < len(rest) and rest[at].startswith("-"):
        at += 2 if rest[at] in ("-p", "-i", "-l", "-o", "-F", "-J", "-L", "-R", "-D") else 1
    return rest[at + 1 :]


def _of_program(name: str, rest: tuple[str, ...]) -> Effect:
    if special := _SPECIAL.get(name):
        return special(rest)
    if name in _CLOUD:
        return _of_cloud(name, rest)
    if name in _DATABASES:
        return _of_database(rest)
    if name in _INTERPRETERS and rest[:1] in (("--version",), ("-V",), ("--help",), ("version",)):
        return READS
    if table := _SUBCOMMANDS.get(name):
        return _of_subcommand(name, table, rest)
    if effect := _PROGRAMS.get(name):
        return _at_path(rest) if effect is MAKES else effect
    if "-" in name and (cmdlet := effect_of(split(name))).known:
        return cmdlet
    if name in _INTERPRETERS:
        return RUNS
    told = effect_of([part for word in _plain(rest)[:3] if word.isidentifier() for part in split(word)])
    return both(RUNS, replace(told, known=True))  # `adm token create`: its own words may add to that


def _at_path(rest: tuple[str, ...]) -> Effect:
    """A program that writes files, judged by the last one that it names."""
    names = _plain(rest)
    return both(MAKES, effect_of_path(names[-1])) if names else MAKES


def _of_subcommand(name: str, table: dict[str, Effect], rest: tuple[str, ...]) -> Effect:
    with_value = ("-C", "-c", "-n", "--namespace", "--git-dir", "-H", "--context", "-u")
    skip = False
    for index, word in enumerate(rest):
        if skip or (word.startswith("-") and word not in table):
            skip = not skip and word in with_value
            continue
        if name == "git":
            if word == "config":
                return _of_git_config(rest[index + 1 :])
            if word in ("branch", "stash", "tag") and not {"-D", "-d", "--delete", "drop", "clear"}.isdisjoint(rest):
                return CHANGES
        return table.get(word) or _OTHER_SUBCOMMAND.get(name, CHANGES)
    return _OTHER_SUBCOMMAND.get(name, READS)


def _of_git_config(rest: tuple[str, ...]) -> Effect:
    if len(_plain(rest)) < 2 or not {"--get", "--list", "-l", "--get-all", "get", "list"}.isdisjoint(rest):
        return READS
    return LASTS if any(word.lower().startswith(_GIT_LASTING) for word in rest) else MAKES


def _of_curl(rest: tuple[str, ...]) -> Effect:
    method, carries, effect = "", False, OUT
    for word, following in itertools.zip_longest(rest, rest[1:], fillvalue=""):
        short = word.startswith("-") and not word.startswith("--")
        if word in ("-X", "--request", "--method", "-Method", "-method"):
            method = following
        elif word.startswith(("-X", "--request=", "--method=")):
            method = word.rpartition("=")[2].removeprefix("-X")
        elif word in ("-o", "--output", "-OutFile"):
            effect = both(effect, effect_of_path(following))
        elif word in ("-K", "--config"):
            return _OPAQUE
        carries |= word.startswith(_CARRIES) or (short and len(word) < 8 and any(flag in word for flag in "dFT"))
    return both(effect, effect_of_http(method, body=carries))


def _of_httpie(rest: tuple[str, ...]) -> Effect:
    names = _plain(rest)
    method = names[0] if names and names[0].isupper() else ""
    items = names[2:] if method else names[1:]
    return effect_of_http(method, body=any("==" not in word and ("=" in word or "@" in word) for word in items))


def _of_wget(rest: tuple[str, ...]) -> Effect:
    carries = any(word.startswith(("--post-", "--body-", "--method")) for word in rest)
    return SENDS_OUT if carries else both(OUT, MAKES)


def _of_sed(rest: tuple[str, ...]) -> Effect:
    in_place = any(word.startswith("--in-place") or (word[:1] == "-" != word[1:2] and "i" in word) for word in rest)
    return both(READS, _at_path(rest)) if in_place else READS


def _of_awk(rest: tuple[str, ...]) -> Effect:
    return RUNS if any("system(" in word or "|" in word or ">" in word for word in rest) else READS


def _of_tee(rest: tuple[str, ...]) -> Effect:
    effect = MAKES
    for path in _plain(rest):
        effect = both(effect, effect_of_path(path))
    return effect


def _of_rsync(rest: tuple[str, ...]) -> Effect:
    names = _plain(rest)
    removes = any(word.startswith(("--delete", "--remove")) for word in rest)
    effect = CHANGES if removes else _at_path(rest)
    if names and ":" in names[-1]:
        return both(effect, SENDS_OUT)
    return both(effect, OUT) if any(":" in word for word in names) else effect


def _of_tar(rest: tuple[str, ...]) -> Effect:
    if any("checkpoint-action" in word or word.startswith(("--to-command", "--use-compress", "-I")) for word in rest):
        return RUNS
    return READS if rest and rest[0].lstrip("-")[:1] == "t" else MAKES


def _of_openssl(rest: tuple[str, ...]) -> Effect:
    if rest[:1] in (("s_client",), ("s_server",)):
        return SENDS_OUT
    return READS if rest[:1] in (("version",), ("x509",), ("dgst",), ("asn1parse",), ("verify",)) else MAKES


def _of_mount(rest: tuple[str, ...]) -> Effect:
    return CHANGES if rest else READS


def _of_service(rest: tuple[str, ...]) -> Effect:
    return READS if "status" in rest or "--status-all" in rest else CHANGES


_SPECIAL: Final[dict[str, Callable[[tuple[str, ...]], Effect]]] = {
    "curl": _of_curl, "invoke-webrequest": _of_curl, "invoke-restmethod": _of_curl, "iwr": _of_curl, "irm": _of_curl,
    "http": _of_httpie, "https": _of_httpie, "xh": _of_httpie, "wget": _of_wget, "sed": _of_sed, "awk": _of_awk,
    "gawk": _of_awk, "mawk": _of_awk, "tee": _of_tee, "rsync": _of_rsync, "tar": _of_tar, "openssl": _of_openssl,
    "mount": _of_mount, "service": _of_service,
}  # fmt: skip


def _of_cloud(name: str, rest: tuple[str, ...]) -> Effect:
    """A cloud's own command, by the verb among its first words: `ec2 describe-instances`, `pr create`."""
    names = _plain(rest)[:4]
    if not names:
        return READS
    copies = len(names) > 2 and names[0] in ("s3", "storage") and names[1] in ("cp", "mv", "sync", "rsync")
    if copies or name == "gsutil":
        return both(CHANGES, SENDS_OUT if "://" in names[-1] else OUT)
    effect = effect_of([part for word in names for part in split(word)])
    if not effect.known:
        return both(RUNS, SENDS_OUT)
    return both(effect, SENDS_OUT if effect.changes else OUT)


def _of_database(rest: tuple[str, ...]) -> Effect:
    """A database's client, by the SQL among its arguments; without any it opens a dialogue."""
    found: Effect | None = None
    for word in rest:
        text = word.partition("=")[2] if word.startswith("--") else word
        if effect := effect_of_sql(text):
            found = both(found, effect) if found else effect
    return found or RUNS

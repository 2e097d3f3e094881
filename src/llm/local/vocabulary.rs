//! What people call things, in English and German. Umlauts are spelled out, as [`super::words::Words`] does.

/// What a word speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Hint {
    Cpu,
    Memory,
    Disk,
    Network,
    Address,
    Processes,
    Uptime,
    Services,
    Logs,
    Temperature,
    Slow,
    /// "eats", "uses", "hogs": asks for processes.
    Consume,
    /// Weak: means the disk unless something else is named.
    Room,
    /// Weak: means the log unless something else is named.
    Trouble,
    /// Weak: the machine as a whole.
    Machine,
    /// All machines.
    Fleet,
}

/// A word and what it speaks of; typos are forgiven.
#[rustfmt::skip] // a word per line would be pages
pub(super) const WORDS: &[(Hint, &[&str])] = &[
    (Hint::Cpu, &[
        "cpu", "cpus", "processor", "processors", "prozessor", "cores", "load", "loadavg", "auslastung", "busy",
        "ausgelastet", "iowait",
    ]),
    (Hint::Memory, &[
        "memory", "ram", "swap", "swapping", "oom", "mem", "arbeitsspeicher", "speicher", "hauptspeicher",
        "speicherverbrauch",
    ]),
    (Hint::Disk, &[
        "disk", "disks", "storage", "drive", "drives", "ssd", "hdd", "nvme", "sdcard", "filesystem", "filesystems",
        "inodes", "partition", "partitions", "mount", "mounts", "festplatte", "festplatten", "platte", "platten",
        "speicherplatz", "speicherkarte", "laufwerk", "laufwerke", "dateisystem", "df",
    ]),
    (Hint::Network, &[
        "network", "networking", "internet", "wifi", "wlan", "lan", "ethernet", "connection", "connections",
        "connected", "bandwidth", "traffic", "online", "offline", "gateway", "ports", "netzwerk", "netz",
        "verbindung", "verbindungen", "eth0", "wlan0", "router",
    ]),
    (Hint::Address, &["ip", "ipv4", "ipv6", "address", "addresses", "adresse", "adressen", "ip-adresse", "ip-address"]),
    (Hint::Processes, &[
        "process", "processes", "program", "programs", "programme", "app", "apps", "top", "htop", "zombie", "zombies",
        "prozess", "prozesse", "programm", "ps",
    ]),
    (Hint::Uptime, &[
        "uptime", "reboot", "reboots", "rebooted", "rebooting", "restarted", "boot", "booted", "neustart",
        "neugestartet", "hochgefahren", "kernel", "distro", "distribution", "os", "hostname", "betriebssystem",
        "laufzeit",
    ]),
    (
        Hint::Services,
        &["service", "services", "daemon", "daemons", "systemd", "units", "systemctl", "dienst", "dienste"],
    ),
    (Hint::Logs, &[
        "log", "logs", "journal", "journalctl", "syslog", "dmesg", "logfile", "logfiles", "logbuch", "protokoll",
        "protokolle", "crash", "crashed", "crashes", "abgestuerzt", "absturz",
    ]),
    (Hint::Temperature, &[
        "temperature", "temperatures", "temp", "temps", "thermal", "hot", "warm", "heat", "overheating", "overheat",
        "cooling", "throttled", "throttling", "sensors", "temperatur", "temperaturen", "heiss", "ueberhitzt", "grad",
    ]),
    (Hint::Slow, &[
        "slow", "slowly", "sluggish", "lag", "lags", "lagging", "laggy", "unresponsive", "overloaded", "stuck",
        "hanging", "hangs", "freezes", "performance", "langsam", "lahm", "traege", "haengt", "ruckelt", "ueberlastet",
    ]),
    (Hint::Consume, &[
        "eats", "eating", "eat", "uses", "using", "use", "used", "hogs", "hogging", "consumes", "consuming", "taking",
        "takes", "burning", "frisst", "verbraucht", "braucht", "nutzt", "belegt", "benutzt", "fressen",
    ]),
    (Hint::Room, &["space", "full", "room", "voll", "platz", "free", "frei"]),
    (Hint::Trouble, &[
        "error", "errors", "warning", "warnings", "fehler", "warnungen", "fehlermeldungen", "failures", "failed",
        "failing",
    ]),
    (Hint::Machine, &[
        "machine", "server", "system", "host", "box", "pi", "raspberry", "raspi", "nas", "computer", "pc", "laptop",
        "device", "maschine", "rechner", "kiste", "geraet", "status", "health", "healthy", "overview", "summary",
        "checkup", "diagnose", "diagnosis", "inspect", "problem", "problems", "probleme", "wrong", "broken", "kaputt",
        "zustand", "ueberblick", "uebersicht", "gesundheit", "vitals",
    ]),
    (Hint::Fleet, &[
        "machines", "servers", "hosts", "devices", "computers", "boxes", "fleet", "maschinen", "geraete", "joined",
    ]),
];

/// Phrases and what they speak of; exact.
#[rustfmt::skip] // a word per line would be pages
pub(super) const PHRASES: &[(Hint, &[&str])] = &[
    (Hint::Disk, &[
        "sd card", "sd karte", "hard drive", "hard disk", "file system", "space is left", "space left", "disk space",
        "free space",
    ]),
    (Hint::Memory, &["out of memory", "free memory"]),
    (Hint::Processes, &[
        "what is running", "whats running", "what runs", "was laeuft", "what is it doing", "was macht er",
        "was macht der",
    ]),
    (Hint::Uptime, &[
        "how long has it been", "how long have you been", "how long is it", "wie lange laeuft", "seit wann laeuft",
        "neu gestartet", "been running", "been up", "power cut", "power outage", "stromausfall",
        "since when is it up", "since when is it running",
    ]),
    (Hint::Services, &["failed units", "failed services", "is everything running", "laeuft alles"]),
    (Hint::Logs, &["error messages", "went wrong"]),
    (Hint::Temperature, &["zu heiss", "too hot"]),
    (Hint::Slow, &["takes forever", "so lange", "taking so long"]),
    (Hint::Machine, &[
        "how are you", "how is it going", "hows it going", "how are things", "how is everything", "how is this",
        "how do you feel", "hows everything", "wie gehts", "wie geht es", "alles ok", "alles okay",
        "alles in ordnung", "alles gut", "everything ok", "everything okay", "everything fine", "everything alright",
        "all good", "all ok", "whats up", "check everything", "is it ok", "is it okay", "are you ok", "are you okay",
    ]),
];

/// Programs that people ask for by name, and the unit that runs them on most systems.
pub(super) const SERVICES: &[(&str, &str)] = &[
    ("adguard", "AdGuardHome"),
    ("adguardhome", "AdGuardHome"),
    ("apache", "apache2"),
    ("apache2", "apache2"),
    ("avahi", "avahi-daemon"),
    ("bluetooth", "bluetooth"),
    ("caddy", "caddy"),
    ("chrony", "chrony"),
    ("containerd", "containerd"),
    ("cron", "cron"),
    ("cups", "cups"),
    ("docker", "docker"),
    ("container", "docker"),
    ("containers", "docker"),
    ("fail2ban", "fail2ban"),
    ("grafana", "grafana-server"),
    ("holt", "holt"),
    ("home-assistant", "home-assistant"),
    ("homeassistant", "home-assistant"),
    ("httpd", "httpd"),
    ("influxdb", "influxdb"),
    ("jellyfin", "jellyfin"),
    ("k3s", "k3s"),
    ("mariadb", "mariadb"),
    ("mosquitto", "mosquitto"),
    ("mqtt", "mosquitto"),
    ("mysql", "mysql"),
    ("networkmanager", "NetworkManager"),
    ("nginx", "nginx"),
    ("node-red", "nodered"),
    ("nodered", "nodered"),
    ("octoprint", "octoprint"),
    ("ollama", "ollama"),
    ("pihole", "pihole-FTL"),
    ("pi-hole", "pihole-FTL"),
    ("plex", "plexmediaserver"),
    ("podman", "podman"),
    ("postfix", "postfix"),
    ("postgres", "postgresql"),
    ("postgresql", "postgresql"),
    ("prometheus", "prometheus"),
    ("redis", "redis-server"),
    ("samba", "smbd"),
    ("smbd", "smbd"),
    ("ssh", "ssh"),
    ("sshd", "ssh"),
    ("syncthing", "syncthing"),
    ("tailscale", "tailscaled"),
    ("traefik", "traefik"),
    ("transmission", "transmission-daemon"),
    ("unbound", "unbound"),
    ("unifi", "unifi"),
    ("zigbee2mqtt", "zigbee2mqtt"),
];

/// Orders to change something, when they come first. Holt's own planner only looks.
#[rustfmt::skip] // a word per line would be pages
pub(super) const ORDERS: &[&str] = &[
    "delete", "remove", "rm", "kill", "stop", "start", "restart", "reboot", "install", "uninstall", "update",
    "upgrade", "format", "shutdown", "wipe", "erase", "clean", "clear", "empty", "move", "copy", "rename", "chmod",
    "sudo", "enable", "disable", "fix", "repair", "drop", "block", "open", "close", "change", "set", "add", "loesche",
    "loesch", "entferne", "starte", "stoppe", "beende", "installiere", "aktualisiere", "formatiere", "repariere",
    "raeume", "oeffne", "schliesse", "aendere", "fahr", "fahre", "schalte", "turn", "switch", "power",
];

/// German orders put the verb last: "den Server neu starten".
#[rustfmt::skip] // a word per line would be pages
pub(super) const ORDERS_LAST: &[&str] = &[
    "starten", "neustarten", "loeschen", "herunterfahren", "runterfahren", "beenden", "installieren", "aktualisieren",
    "entfernen", "stoppen",
];

/// Behind an order word these make it a question: "reboot history", "update needed?".
#[rustfmt::skip] // a word per line would be pages
pub(super) const ORDER_QUESTIONS: &[&str] =
    &["time", "times", "history", "needed", "required", "reason", "status", "log", "logs", "date", "noetig", "ports"];

/// Wishes for text, which need a real model.
#[rustfmt::skip] // a word per line would be pages
pub(super) const CREATIONS: &[&str] = &[
    "write", "draw", "translate", "compose", "summarize", "summarise", "sing", "paint", "generate", "code", "program",
    "imagine", "schreib", "schreibe", "uebersetze", "zeichne", "dichte", "male", "erfinde", "create", "make",
];

/// Words in front of a wish that say nothing.
#[rustfmt::skip] // a word per line would be pages
pub(super) const POLITE: &[&str] = &[
    "please", "pls", "can", "could", "would", "will", "you", "bitte", "kannst", "koenntest", "du", "hey", "hi",
    "hello", "hallo", "holt", "now", "just", "mal", "and", "then", "ok", "okay", "i", "want", "to", "need", "id",
    "like", "und", "jetzt", "ich", "will", "moechte",
];

#[rustfmt::skip] // a word per line would be pages
pub(super) const GREETINGS: &[&str] = &[
    "hi", "hello", "hey", "hallo", "moin", "servus", "gruezi", "morning", "good", "evening", "afternoon", "day",
    "there", "guten", "tag", "morgen", "abend", "holt", "yo", "howdy", "greetings", "test", "ping",
];

#[rustfmt::skip] // a word per line would be pages
pub(super) const THANKS: &[&str] = &[
    "thanks", "thank", "thx", "ty", "danke", "dankeschoen", "cheers", "merci", "you", "very", "much", "a", "lot",
    "vielen", "dank", "great", "super", "cool", "nice", "perfect", "perfekt", "prima", "ok", "okay", "good", "job",
    "well", "done", "awesome", "schoen", "gut", "alright", "fine", "holt", "so", "for", "that", "the", "help",
];

#[rustfmt::skip] // a word per line would be pages
pub(super) const BYES: &[&str] =
    &["bye", "goodbye", "tschuess", "ciao", "good", "night", "gute", "nacht", "see", "you", "later", "quit", "exit"];

#[rustfmt::skip] // a word per line would be pages
pub(super) const HELP_PHRASES: &[&str] = &[
    "help", "hilfe", "what can you do", "what do you do", "who are you", "what are you", "was kannst du",
    "wer bist du", "what can i ask", "was kann ich fragen", "how do you work", "commands", "how does this work",
    "what is this", "what is holt", "was ist holt", "your capabilities", "what tools do you have",
    "which tools do you have",
];

"""The faults that Watchkeeper tells about itself and its senders: title and runbook of each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """One kind of fault, and the process whose heartbeat tells of it, where that is one alone."""

    title: str
    runbook: tuple[str, ...]
    teller: str = ""


KINDS = {
    "process-silent": Kind(
        "A process of Watchkeeper shows no sign of life",
        (
            "Look at the log for the process's last lines; the supervisor starts again what ended.",
            "Is the machine out of memory, of processor time or of disk? Give it what it lacks.",
            "A process that lives and says nothing hangs: end it by its process id, and it is started again.",
            "While the edge is silent senders are refused; see that they keep what they could not send.",
        ),
    ),
    "process-restarted": Kind(
        "A process of Watchkeeper ended and was started again",
        (
            "Look at the log for its last lines before it ended: an error, or the system short of memory?",
            "Nothing answered is lost: the spool is read from where it was left.",
            "If it ends again and again, keep the log and report the fault.",
        ),
    ),
    "judging-failed": Kind(
        "Detection has stopped judging",
        (
            "The reason names the fault; the log of the detection process has the whole of it.",
            "Senders go on being answered and a person's stop goes on working. Nothing is judged meanwhile.",
            "A damaged spool segment or a full disk must be mended; judging then goes on where it stopped.",
        ),
        "detection",
    ),
    "rules-refused": Kind(
        "New rules are not in force",
        (
            "The reason names each file and what is wrong in it; the rules in force stay as they were.",
            "Mend the files, and see that `watchkeeper rules check` finds nothing.",
            "Then run `watchkeeper reload`, or send SIGHUP to the daemon.",
        ),
    ),
    "detection-lag": Kind(
        "Detection is behind",
        (
            "Alerts come later by as much as it says. Is more coming in than this machine can judge?",
            "See who sends most on the status page, and whether a rule was added that is slow.",
            "Move the event store to a server of its own (docs), or give this machine faster cores.",
        ),
        "edge",
    ),
    "storing-lag": Kind(
        "Storing is behind",
        (
            "Events wait in the spool and are judged all the same; pages and history lack them.",
            "Is ClickHouse slow or short of disk? Look at its own log and at the disk's free space.",
            "When the spool reaches spool.max_bytes senders are told to wait: mend it before that.",
        ),
        "console",
    ),
    "storing-failed": Kind(
        "Events cannot be stored",
        (
            "The reason is what ClickHouse answered. With a server: does it run, and do store.dsn and its "
            "password hold? Embedded: is the disk full?",
            "Events wait in the spool and are judged all the same. They are stored once it answers.",
            "When the spool reaches spool.max_bytes senders are told to wait: mend it before that.",
        ),
        "console",
    ),
    "throttled": Kind(
        "A sender is told to wait",
        (
            "It sends more than its share, and is answered 429. It must send again what was refused.",
            "Is it a fault of the sender (a loop, a replay), or has its work grown?",
            "If the load is right, raise edge.max_waiting_events and edge.max_waiting_bytes, or let it "
            "send larger batches less often.",
        ),
        "edge",
    ),
    "spool-full": Kind(
        "The spool is full or nearly so",
        (
            "The spool shrinks only when detection has judged and the console has stored: which is behind?",
            "Are there alerts that storing fails or lags? Mend that first.",
            "If the disk has room, raise spool.max_bytes, and start again.",
        ),
        "edge",
    ),
    "disk-fault": Kind(
        "The disk takes nothing more",
        (
            "Free some space on the disk of the data folder, or mend it. The reason says what it answers.",
            "Nothing needs a restart: senders are taken again as soon as a write succeeds.",
            "See that senders repeat what was answered 503; what was answered 200 is safe.",
        ),
        "edge",
    ),
    "spool-cut": Kind(
        "A torn end of the spool was cut off",
        (
            "The machine or the process ended in the middle of a write; that write was never answered.",
            "Senders that repeat what was not answered lose nothing. See that yours do.",
            "If there was no crash, look at the disk: a file that was sound has changed.",
        ),
    ),
    "rejected": Kind(
        "Records of a sender are refused",
        (
            "Look at the dead letters of this key: each has its reason and what was sent.",
            "The reason names field and remedy. Mend the sender, or the map of its dialect.",
            "A name that is refused for its length, or keys that stand twice, may be somebody trying.",
        ),
        "edge",
    ),
    "dead-letters-lost": Kind(
        "Refused records are not kept",
        (
            "Could they not be written? Look at the disk and at the folder dead-letters/.",
            "Did they make room for newer ones? See whose were refused so often and mend that sender; "
            "replay or download what is left, or raise edge.max_dead_letter_bytes.",
            "The senders were told what was refused, and why, in the answers to their requests.",
        ),
        "edge",
    ),
    "unmapped": Kind(
        "Telemetry of a sender is not understood",
        (
            "No map recognised these records: they are kept whole, as telemetry.unmapped, and not judged.",
            "Look at some of them: which framework and which version sends them?",
            "Add or mend the map of that dialect, or set the sender's exporter to the GenAI conventions.",
        ),
        "edge",
    ),
    "silent-source": Kind(
        "A sender has gone silent",
        (
            "Does the agent or gateway behind this key run? Is there a change or an incident at its site?",
            "Can it reach Watchkeeper: address, certificate, key not revoked?",
            "An agent that works and is not heard is unwatched: stop it, or watch it by other means.",
            "If it was switched off on purpose, revoke its key; that ends the alert.",
        ),
        "edge",
    ),
    "clock-skew": Kind(
        "A sender's clock is wrong",
        (
            "Whole hours point to a time zone, a few minutes to a host without time synchronisation.",
            "Ahead: its events count as having happened when they arrived. Behind by hours or days may be "
            "history: send that with `watchkeeper replay`.",
            "Until it is mended, do not rely on the order of its events beside those of others.",
        ),
        "edge",
    ),
    "state-evicted": Kind(
        "Detectors forget for want of room",
        (
            "More sessions or groups are open at once than detectors keep; the least recently used give way.",
            "Look for an agent or key with very many sessions: names made up for each call, or a flood.",
            "A flood may be meant to make detectors forget: look at what else happened at that time.",
        ),
        "detection",
    ),
    "spool-gap": Kind(
        "Part of the spool is gone",
        (
            "The reason says which segments. Was something removed by hand, or restored from an older copy?",
            "What was answered and stored is in ClickHouse; what lay only in those segments was not judged.",
            "Ask the senders of that time to send again what they still have, with `watchkeeper replay`.",
        ),
    ),
    "state-lost": Kind(
        "Detectors have lost what they knew",
        (
            "The reason names the snapshots or detectors. Is the disk sound?",
            "Rules work on; learning detectors begin anew, and are in the shadow until they know enough.",
            "Close the alert when their stage on the status page is as before.",
        ),
    ),
}

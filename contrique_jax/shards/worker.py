"""A process that scores shards: `python -m contrique_jax.shards.worker`. On stdin come lines of JSON, the job first, then
shards; on stdout go answers. It ends with its stdin, so that nothing is left of a command that was killed.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import traceback
import warnings
from dataclasses import asdict
from typing import Any, BinaryIO

from contrique_jax.errors import UserError, disk_message, foreign_message, permission_message


def main() -> None:
    """Answers until stdin ends."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer
    warnings.simplefilter("ignore")  # of theirs, as in every command
    tasks: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(sys.stdin.buffer, tasks), daemon=True).start()

    def say(**answer: Any) -> None:
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()

    scorer: Any = None
    while True:
        task = tasks.get()
        try:
            if scorer is None:
                # after the environment says how many threads there are to be
                from contrique_jax.shards.scoring import Job, Scorer

                scorer = Scorer(Job(**task["job"]), task["threads"])
                say(about=scorer.about(), device=_device())
                continue
            at = (lambda name: say(at=name)) if task["one_by_one"] else None
            say(counts=asdict(scorer.score(task["shard"], task["skip"], at)))
        except UserError as error:
            say(error=str(error))
        except OSError as error:
            sentence = disk_message(error, str(error.filename or "output")) or permission_message(error)
            sentence = sentence or foreign_message(error)
            say(error=sentence) if sentence else say(fault=traceback.format_exc())
        except Exception:
            say(fault=traceback.format_exc())


def _read(stream: BinaryIO, tasks: queue.SimpleQueue[dict[str, Any]]) -> None:
    for line in stream:
        tasks.put(json.loads(line))
    os._exit(0)


def _device() -> str:
    import jax

    return jax.default_backend()


if __name__ == "__main__":
    main()

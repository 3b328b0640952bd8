"""Stands in for every job: writes down how it was called and does what `$SCORING_HOME/behaviour.json` says.

There, `"check.py 2013-07-03": {"exit": 3, "say": "..."}` makes a job fail, `{"result": {...}}` adds to its result and
`{"seconds": 60}` makes it wait.
"""

import json
import os
import sys
import time
from pathlib import Path

script = Path(sys.argv[0]).name
deployment, *rest = sys.argv[1:]
options = dict(zip(rest[::2], rest[1::2], strict=True))
home = Path(os.environ["SCORING_HOME"])
home.mkdir(parents=True, exist_ok=True)
with (home / "calls.jsonl").open("a", encoding="utf-8") as calls:
    calls.write(json.dumps({"script": script, "deployment": deployment, **options, "pid": os.getpid()}) + "\n")
print(f"{script} at work", file=sys.stderr, flush=True)
behaviours = json.loads((home / "behaviour.json").read_text("utf-8")) if (home / "behaviour.json").exists() else {}
behaviour = behaviours.get(f"{script} {options['--partition']}", {})
time.sleep(behaviour.get("seconds", 0))
if "say" in behaviour:
    print(f"DataError: {behaviour['say']}", file=sys.stderr, flush=True)
if "exit" in behaviour:
    sys.exit(behaviour["exit"])
print(json.dumps({"run_id": f"{script} {options['--partition']}", **behaviour.get("result", {})}))

# %% [markdown]
# # An array job on AWS Batch
#
# An array job needs no cluster: each child takes its part of the items, and all write to one archive. The command of the job is
#
#     xchip index --items-file s3://bucket/items.txt --array -o s3://bucket/archive
#
# AWS Batch gives each child its number in two environment variables. In this example the children are three processes on this
# machine. On other systems, pass `--part I/N`.
#
# The folder [aws-batch](aws-batch/) has an image and job definitions for AWS: a processor as an array job, then `xchip prechip`.

# %%
from xchip.testing import write_scene

items = [write_scene("xchip-demo/batch/scenes", item_id=f"synthetic-{n}", seed=n, shape=(512, 512)) for n in range(7)]
folder = "xchip-demo/batch"  # or s3://bucket; items may also come from a search: --api, --collection, --bbox, --datetime

# %% [markdown]
# **Write the list of items**, one path or URL on each line.

# %%
from pathlib import Path

Path(f"{folder}/items.txt").write_text("".join(f"{item}\n" for item in items))

# %% [markdown]
# **Start the children.** They need not know of each other. A child that is killed and started again resumes.

# %%
import os
import subprocess
import sys

program = Path(sys.executable).with_name("xchip")
command = [program, "index", "--items-file", f"{folder}/items.txt", "--array", "-o", f"{folder}/archive", "--size", "128"]
children = []
for number in range(3):
    variables = {"AWS_BATCH_JOB_ARRAY_INDEX": str(number), "AWS_BATCH_JOB_ARRAY_SIZE": "3"}
    children.append(subprocess.Popen([*command, "--threads", "1"], env=os.environ | variables, stdout=subprocess.PIPE, text=True))
for number, child in enumerate(children):
    print(f"child {number}: {child.communicate()[0].strip()}")
    if child.returncode:  # 3: some items failed; `xchip status --failures` tells which, and why
        raise SystemExit(f"child {number} ended with status {child.returncode}")

# %% [markdown]
# **Check** what is done, and merge all parts into one sorted file.

# %%
for words in (["status", f"{folder}/archive"], ["merge", f"{folder}/archive", "-o", f"{folder}/all.parquet"]):
    print(subprocess.run([program, *words], check=True, capture_output=True, text=True).stdout.strip())

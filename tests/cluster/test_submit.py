import sys
import time
from typing import Any
from cluster.submit import Jobs

def test_exit(jobs: Jobs) -> None:
    t=time.time()
    i = jobs.submit(["python", "-c", "import genray,os;print(genray.__file__);print(os.getcwd());raise SystemExit(3)"], target="train-x", run="a b")
    print("sub", time.time()-t)
    out=[]
    print(jobs.follow(i, out.append)); print(out)
    print(time.time()-t)
    print(jobs.status(i)); print(jobs.list())
    t=time.time()
    i = jobs.submit(["python", "-c", "print(5)"], target="train-x", run="a b")
    print("sub", time.time()-t)
    print(jobs.follow(i, out.append)); print(out)
    print(time.time()-t)
    i = jobs.submit(["python", "-c", "import sys; sys.stdout.buffer.write(b'abc\\xff\\n'); print('end')"], target="train-x", run="a b")
    out=[]
    print("sub", time.time()-t)
    print(jobs.follow(i, out.append)); print(out)
    print(time.time()-t)

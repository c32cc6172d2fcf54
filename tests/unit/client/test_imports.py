import subprocess
import sys

FOREIGN = ("uvicorn", "starlette", "redis", "pydantic", "structlog", "prometheus_client", "jwt", "orjson", "uvloop")


def test_importing_the_client_brings_no_part_of_the_server() -> None:
    code = (
        "import sys, gateway.client;"
        f"print([name for name in {FOREIGN} if name in sys.modules],"
        "sorted({name.split('.')[1] for name in sys.modules if name.startswith('gateway.')}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[] ['client', 'protocol']\n", "")

import random
from pathlib import Path

import pytest

from loadtest.catalogue import ScenarioError, find, make, parse_assignments
from loadtest.scenario import ClientPlan, Model, Scenario, description, parameters
from loadtest.scenarios import SCENARIOS, Fanout

_QUIZ = '''
from loadtest.scenario import ClientPlan, Scenario

class Quiz(Scenario, frozen=True, kw_only=True):
    """Teams listen, one host asks."""
    teams: int = 10

    def client(self, number, chance):
        if number == 0:
            return ClientPlan(publish=tuple(f"team-{team}" for team in range(self.teams)))
        return ClientPlan(subscribe=(f"team-{number % self.teams}",))
'''


@pytest.fixture
def quiz(tmp_path: Path) -> str:
    path = tmp_path / "quiz.py"
    path.write_text(_QUIZ)
    return f"{path}:Quiz"


@pytest.mark.parametrize("kind", SCENARIOS.values(), ids=SCENARIOS)
def test_each_scenario_describes_itself_and_plans_somebody_who_publishes_what_others_hear(kind: type[Scenario]) -> None:
    scenario = kind()
    plans = [scenario.plan(number, seed=1) for number in range(scenario.clients)]
    assert description(kind).endswith(".")
    assert {name for plan in plans for name in plan.publish} & {name for plan in plans for name in plan.subscribe}
    assert all(plan.subscribe or plan.publish for plan in plans)


@pytest.mark.parametrize("kind", SCENARIOS.values(), ids=SCENARIOS)
def test_a_plan_is_the_same_wherever_and_whenever_it_is_made(kind: type[Scenario]) -> None:
    forward = [kind().plan(number, seed=3) for number in range(50)]
    backward = [kind().plan(number, seed=3) for number in reversed(range(50))]
    assert forward == backward[::-1]


def test_a_scenario_of_ones_own_takes_ten_lines(quiz: str) -> None:
    scenario = make(find(quiz), parse_assignments(["teams=5", "clients=20"]))
    assert scenario.client(7, random.Random()) == ClientPlan(subscribe=("team-2",))
    assert description(type(scenario)) == "Teams listen, one host asks."
    assert parameters(scenario)["teams"] == 5


def test_a_scenario_can_be_named_by_its_module() -> None:
    assert find("loadtest.scenarios:Fanout") is Fanout


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("fanuot", "did you mean 'fanout'"),
        ("x", "there are fanout, chat"),
        ("nowhere.py:X", "there is no file"),
        ("no.such.module:X", "can't import"),
        ("loadtest.scenarios:Nothing", "has no scenario 'Nothing'"),
        ("loadtest.scenarios:SCENARIOS", "has no scenario"),
    ],
)
def test_a_scenario_that_is_not_there_is_told_in_a_sentence(name: str, sentence: str) -> None:
    with pytest.raises(ScenarioError, match=sentence):
        find(name)


def test_a_file_that_fails_is_told_without_a_traceback(tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text("1 / 0")
    with pytest.raises(ScenarioError, match="failed when it was imported: ZeroDivisionError"):
        find(f"{path}:X")


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["clients=5"], {"clients": 5}),
        (["namespace=", "model=closed"], {"namespace": "", "model": Model.CLOSED}),
        (["rate=1.5", "has_cache=true"], {"rate": 1.5, "has_cache": True}),
        (['namespace="a b"'], {"namespace": "a b"}),
    ],
)
def test_parameters_are_read_as_what_they_are(texts: list[str], expected: dict[str, object]) -> None:
    scenario = make(Fanout, parse_assignments(texts))
    assert {name: getattr(scenario, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        (["client=5"], "has no parameter 'client': did you mean 'clients'"),
        (["zzz=5"], "has no parameter 'zzz': it has clients"),
        (["clients=many"], "clients"),
        (["clients=0"], "clients must be 1 or more"),
        (["plateau_s=0"], "plateau_s must be above 0"),
        (["rate=-1"], "rate must be 0 or more"),
        (["rate=nan"], "rate must be 0 or more"),
        (["model=half-open"], "half-open"),
        (["clients"], "write name=value"),
        (["=5"], "write name=value"),
    ],
)
def test_a_parameter_that_can_not_be_is_told_in_a_sentence(texts: list[str], sentence: str) -> None:
    with pytest.raises(ScenarioError, match=sentence):
        make(Fanout, parse_assignments(texts))

"""Write the report beside an axis: what was run, the results, the gates, and the alternatives."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from demo.axis.axis import FLOOR_NAMES, AssistantAxis
from demo.axis.gates import (
    LATE_TURNS,
    LEAST_SAME,
    LEAST_VERBATIM,
    MEASURED_WORDS,
    MOST_PERPLEXITY,
    axis_words,
    injected_share,
    is_assistant_axis,
    what_a_reply_tells,
)
from demo.extraction.axis import Built
from demo.extraction.controls import Controls, compare, published_order
from demo.extraction.report_plots import write_plots
from demo.extraction.sweep import Trial
from demo.extraction.variants import LEAST_GAIN
from demo.utils.markdown import markdown_table

_GATE_WORDS = {
    "split_half": "cosine of the axes from two halves of the rollouts, with the same roles and questions",
    "cos_pc1": "absolute cosine of the axis with the first principal component of the roles",
    "default_above_roles": "share of roles whose vector lies below the default",
    "role_order": "rank correlation with the published order of Qwen3-32B, lower bound of its 95% interval",
    "auc": "AUC of default against role rollouts, on roles and questions not used for the axis",
    "late_turns": "AUC of default against role replies in the last turns of scripted talks",
    "fluency": "perplexity of capped replies relative to uncapped ones, by the uncapped model (at most)",
    "sameness": "share of plain questions answered correctly without the cap that stay correct with it",
}

_VARIANT_WORDS = {
    "probe_layer": "probe layer",
    "auc_choice": "AUC, on the roles that choose",
    "auc": "AUC, held out",
    "split_half": "split-half cosine",
    "cos_pc1": "abs cos(axis, PC1), in the coordinates of each",
    "pc1_share": "PC1's share of the variance",
    "cos_plain": "cosine with the plain axis of this layer",
    "largest": "share of the squared axis in its ten largest coordinates",
    "largest_variance": "share of the variance of replies in the ten largest coordinates",
}

_INJECTED = "Where a chat has no system prompt, the chat template writes this into the prompt:"

# How roles were asked for, where it was not by their instructions alone.
_ASKED = {
    "strong": "Every role prompt ended with a demand to stay in character (--role-prompts strong).",
    "example": "Every role prompt ended with a demand to stay in character, and every chat began with an "
    "exchange in which the role, or on the default side the model, had introduced itself "
    "(--role-prompts example).",
}


# In plain transcripts.
_ASKED_BASE = (
    "The model was given plain transcripts of interviews (--base), each on a character: a role, or on the "
    "default side an AI assistant. The default of this axis is that character, and not a model's habit."
)
_INTRODUCED = (
    " Every transcript began with an exchange in which the character had introduced itself, in the same "
    "words but for its name (--role-prompts example)."
)


def write_report(out: Path, built: Built, controls: Controls) -> None:
    """Write report.md and its pictures into `out`."""
    pictures = write_plots(out, built)
    parts = [
        *_head(built.axis),
        *gates_section(built.axis),
        *_roles(built.axis, pictures),
        *_role_adherence(built),
        *late_turns_section(built.axis),
        *_components(built, controls, pictures),
        *_variants(built.axis),
        *_controls(built.axis, controls),
        *_sweep(built, pictures),
        *_layers(built, pictures),
        *_floors(built.axis),
        "",
    ]
    (out / "report.md").write_text("\n".join(parts), encoding="utf-8")


def _head(axis: AssistantAxis) -> Iterator[str]:
    manifest = axis.manifest
    model, sampling = manifest["model"], manifest["sampling"]
    yield f"# {axis_words(manifest).axis} of {model['id']}"
    yield ""
    yield (
        f"Created by `{manifest['created_with']['command']}`. The model has {model['layers']} decoder layers "
        f"and a hidden size of {model['hidden_size']}, and ran in {model['dtype']}. Replies of up to "
        f"{sampling['max_new_tokens']} tokens, temperature {sampling['temperature']}, "
        f"top-p {sampling['top_p']}, seed {sampling['seed']}."
    )
    yield ""
    yield (
        "The axis is the mean activation of default replies minus the mean role vector, over the content "
        f"tokens of the replies, at the output of every decoder layer. {cap_sentence(axis)}"
    )
    yield ""
    asked = _asked(manifest)
    if asked:
        yield from (asked, "")
    yield from markdown_table(
        ("rollouts", "number"), [(kind, str(n)) for kind, n in manifest["rollouts"].items()]
    )


def _asked(manifest: dict[str, Any]) -> str:
    """How the characters were asked for; "" for plain instructions to a chat model."""
    kind = manifest["role_prompts"]
    if not manifest["model"].get("base"):
        return _ASKED.get(kind, "")
    return _ASKED_BASE + (_INTRODUCED if kind == "example" else "")


def cap_sentence(axis: AssistantAxis) -> str:
    """Where projections are read, and the cap that was chosen."""
    first, last = axis.cap_band
    below = axis.cap_only_below
    condition = "" if below is None else f", for replies that begin below {below:+g} axis units"
    return (
        f"Probe layer {axis.probe_layer}; cap at layers {first} to {last}, floor {axis.cap_floor} of the "
        f"default reply means{condition} (chosen by {axis.manifest['cap']['chosen_by']})."
    )


def gates_section(axis: AssistantAxis) -> Iterator[str]:
    """The lines about the quality gates and about what one reply tells, with their heading."""
    yield from ("", f"## Gates at the probe layer ({axis.probe_layer})", "")
    rows = [
        (
            name,
            _GATE_WORDS[name],
            _number(gate["value"]),
            f"{gate['threshold']:.2f}",
            "yes" if gate["passed"] else "NO",
        )
        for name, gate in axis.manifest["gates"].items()
    ]
    yield from markdown_table(("gate", "what", "value", "threshold", "passed"), rows)
    if not is_assistant_axis(axis.manifest):
        yield ""
        yield (
            "The order of the roles is not that of the Assistant Axis. So this axis is called by what was "
            f"measured: its ends are {MEASURED_WORDS.default} and {MEASURED_WORDS.down} replies."
        )
    if axis.zones is not None:
        yield from ("", what_a_reply_tells(axis.manifest))


def _roles(axis: AssistantAxis, pictures: dict[str, str]) -> Iterator[str]:
    default = axis_words(axis.manifest).default
    yield from ("", "## Roles on the axis", "", f"Axis units: 0 = average role, 1 = {default}.", "")
    yield from _picture("roles.svg", pictures)
    roles, published = axis.manifest["roles"], published_order()
    played = [role | {"projection": role["played"]} for role in roles if role["counts"]]
    for words, chosen in (
        ("roles, each by all its rollouts", roles),
        ("roles that are part of the axis, each by its rollouts in role", played),
    ):
        found = compare(chosen, published)
        if found is not None:
            yield (
                f"Spearman's rank correlation with the published order of Qwen3-32B, over {found.roles} "
                f"{words}: {found.rho:.3f} "
                f"(95% bootstrap interval {found.low:.3f} to {found.high:.3f})."
            )
            yield ""
    yield (
        "*All*: mean over all rollouts of the role. *In role*: mean over the rollouts in which the model "
        "adheres to the role; the axis is made from these, for the roles that have enough of them."
    )
    yield ""
    yield from markdown_table(
        ("role", "all", "in role", "rollouts", "of them in role"),
        [
            (
                role["name"],
                f"{role['projection']:+.2f}",
                f"{role['played']:+.2f}" if role["counts"] else "",
                str(role["n"]),
                str(role["kept"]),
            )
            for role in roles
        ],
    )


def _role_adherence(built: Built) -> Iterator[str]:
    manifest, probe = built.axis.manifest, built.axis.probe_layer
    roles, judged = manifest["roles"], manifest["uptake"]
    kept, total = sum(role["kept"] for role in roles), sum(role["n"] for role in roles)
    yield from ("", "## Role adherence", "")
    yield (
        f"Judge: {judged['judge']}, threshold {judged['threshold']:g}. It counts {kept} of {total} role "
        f"rollouts as role-play. {sum(role['counts'] for role in roles)} of {len(roles)} roles have at "
        f"least {judged['least']} such rollouts and are part of the axis; the others are only listed "
        "above. Cosine of the axis with the one made from every rollout, at the probe layer: "
        f"{built.table.cos_unfiltered[probe]:.3f}."
    )
    if judged["keep_all"]:
        yield "All rollouts were counted nevertheless (--keep-all)."
    yield ""
    aucs = (built.table.auc, built.table.auc_same_question, built.table.auc_unfiltered)
    in_role, same_question, everything = (_number(float(values[probe])) for values in aucs)
    yield (
        f"Held-out AUC at the probe layer: {in_role} over rollouts in role, {same_question} when each is "
        f"compared only with default replies to its own question, {everything} over all rollouts."
    )
    yield from (
        "",
        "By role adherence score, over all held-out role rollouts and the upper half, quarter and tenth "
        "of them:",
        "",
    )
    yield from markdown_table(
        ("lowest role adherence score", "role rollouts", "AUC"),
        [(f"{least:.2f}", str(count), _number(auc)) for least, count, auc in built.auc_by_adherence],
    )


def late_turns_section(axis: AssistantAxis) -> Iterator[str]:
    """The lines about the scripted talks, with their heading."""
    found = axis.manifest["late_turns"]
    yield from ("", "## Late turns", "")
    yield (
        f"{found['talks']} scripted talks under prompts of roles in the lower half of the axis, and as many "
        "under default prompts, with the same messages. AUC: how often a default reply of a turn lies above "
        f"a role-played one. The gate is over turns {LATE_TURNS[0]} to {LATE_TURNS[1]} together, whether "
        "the replies adhere to their role or not. Means in axis units at the probe layer."
    )
    yield ""
    rows = [
        (str(turn), *(_number(found[key][turn - 1]) for key in ("auc", "default", "role")))
        for turn in range(1, len(found["auc"]) + 1)
    ]
    yield from markdown_table(("turn", "AUC", "mean, default", "mean, roles"), rows)


def _components(built: Built, controls: Controls, pictures: dict[str, str]) -> Iterator[str]:
    found, probe, layers = built.axis.manifest["pca"], built.axis.probe_layer, built.table
    yield from ("", "## Principal components of the role vectors", "")
    yield from _picture("variance.svg", pictures)
    yield (
        f"PC1 explains {found['explained_variance'][0]:.1%} of the variance; "
        f"{found['components_for_70_percent']} components explain 70%."
    )
    yield ""
    rows = [
        ("abs cos(axis, PC1)", layers.cos_pc1),
        ("the same with the PC1 that both halves of the rollouts share, without noise", layers.cos_common),
        ("abs cos(PC1 of one half, PC1 of the other), 1 = no noise", layers.pc1_halves),
    ]
    yield from markdown_table(
        ("at the probe layer", "value"),
        [
            *((words, _number(float(values[probe]))) for words, values in rows),
            *(
                (f"length of the unit axis's projection onto {_component_range(count)}", _number(value))
                for count, value in controls.inside.items()
            ),
        ],
    )


def _variants(axis: AssistantAxis) -> Iterator[str]:
    chosen, found = axis.manifest["variant"], axis.manifest["variants"]
    yield from ("", "## Plain and standardised axis", "")
    yield (
        "The standardised axis divides each coordinate by its variance over the rollouts of a side, so that "
        "a few large coordinates do not dominate it; its components are those of coordinates divided by "
        f"their standard deviations. This axis is the {chosen} one. The plain one is kept unless the other "
        f"gains at least {LEAST_GAIN:g} in AUC on the roles that choose. Each is measured at the probe layer "
        "that it would have."
    )
    yield ""
    rows = [
        (words, *(_shown(found[name][key]) for name in ("plain", "standardised")))
        for key, words in _VARIANT_WORDS.items()
    ]
    yield from markdown_table(("measurement", "plain", "standardised"), rows)


def _shown(value: float | int | None) -> str:
    return str(value) if isinstance(value, int) else _number(value)


def _component_range(count: str) -> str:
    return "PC1" if count == "1" else f"PC1 to PC{count}"


def _controls(axis: AssistantAxis, controls: Controls) -> Iterator[str]:
    yield from ("", "## Controls", "", "Axis units at the probe layer: 0 = average role, 1 = default.", "")
    rows = [("distance between two random halves of the default rollouts", f"{controls.default_gap:.3f}")]
    rows += [
        (f"default replies, system prompt: {prompt or 'none'}", f"{value:+.2f}")
        for prompt, value in controls.prompts.items()
    ]
    if controls.neutral is not None:
        rows.append(("replies under a long neutral system prompt", f"{controls.neutral:+.2f}"))
    if controls.bare is not None:
        rows.append(
            ("replies under a system prompt of a few words that say nothing", f"{controls.bare:+.2f}")
        )
    if controls.template_shift is not None:
        rows.append(
            ("shift by the system prompt that the template writes", f"{controls.template_shift:+.2f}")
        )
    if controls.cos_full_length is not None:
        rows.append(
            ("cosine with the axis made only from replies of full length", f"{controls.cos_full_length:.3f}")
        )
    rows += [
        (f"mean reply length in tokens, {side}", f"{value:.1f}") for side, value in controls.tokens.items()
    ]
    yield from markdown_table(("control", "value"), rows)
    if axis.manifest["template_system_prompt"]:
        yield from ("", _INJECTED, "")
        yield from (f"> {line}" for line in axis.manifest["template_system_prompt"].splitlines())
    if sentence := injected_share(axis.manifest):
        yield from ("", sentence)


def _sweep(built: Built, pictures: dict[str, str]) -> Iterator[str]:
    if not built.trials:
        return
    uncapped = built.trials[0]
    yield from ("", "## Sweep of the cap", "")
    yield (
        "The sweep chooses the qualifying setting with the highest projection of the role replies, as the "
        "unsteered model reads them. To qualify, a setting needs a perplexity of at most "
        f"{MOST_PERPLEXITY} times the uncapped one, at least {LEAST_SAME:.0%} of the plain questions "
        f"answered correctly without a cap ({uncapped.right}) still correct, and at least "
        f"{LEAST_VERBATIM:.0%} of all plain answers unchanged word for word, because a cap should leave "
        "ordinary replies alone."
    )
    yield ""
    yield from _picture("sweep.svg", pictures)
    head = (
        "layers",
        "floor",
        "role replies",
        "perplexity ratio",
        "still correct",
        "word for word",
        "acted on role tokens",
        "acted on plain tokens",
        "qualifies",
    )
    yield from markdown_table(head, [_trial_row(trial, uncapped) for trial in built.trials])


def _trial_row(trial: Trial, uncapped: Trial) -> tuple[str, ...]:
    return (
        "none" if trial.layers is None else f"{trial.layers[0]}-{trial.layers[1]}",
        trial.floor or "",
        f"{trial.standing:+.2f}",
        f"{trial.fluency(uncapped):.3f}",
        f"{trial.same:.0%}",
        f"{trial.verbatim:.0%}",
        f"{trial.acted_role:.0%}",
        f"{trial.acted_plain:.0%}",
        "" if trial.layers is None else "yes" if trial.qualifies(uncapped) else "no",
    )


def _layers(built: Built, pictures: dict[str, str]) -> Iterator[str]:
    axis, layers = built.axis, built.table
    yield from ("", "## Layers", "")
    yield from _picture("layers.svg", pictures)
    columns = {
        "norm": layers.norm,
        "AUC choosing": layers.auc_choice,
        "AUC held out": layers.auc,
        "AUC unfiltered": layers.auc_unfiltered,
        "split half": layers.split_half,
        "abs cos PC1": layers.cos_pc1.abs(),
        "cos common PC1": layers.cos_common,
        "PC1 share": layers.pc1_share,
        "default above": layers.default_above,
        "cos unfiltered": layers.cos_unfiltered,
        "published order": layers.published_order,
    }
    rows = [
        (str(layer), *(_number(float(values[layer]), 2) for values in columns.values()))
        for layer in range(axis.layers)
    ]
    yield from markdown_table(("layer", *columns), rows)


def _floors(axis: AssistantAxis) -> Iterator[str]:
    published = axis.manifest.get("published_convention", {})
    yield from ("", "## Floors", "")
    yield (
        "Percentiles of the default reply means, in axis units of their layer. The last column is p0.25 of "
        "the published convention: the 25th percentile of role-wardness over all rollouts, which is the "
        "75th percentile on this scale. Here it is measured over the held-out rollouts."
    )
    yield ""
    rows = [
        (
            str(layer),
            *(f"{axis.floor_units(name, layer):+.2f}" for name in FLOOR_NAMES),
            f"{published['p0.25'][layer]:+.2f}" if published else "",
        )
        for layer in range(axis.layers)
    ]
    yield from markdown_table(("layer", *FLOOR_NAMES, "published p0.25"), rows)


def _picture(name: str, pictures: dict[str, str]) -> Iterator[str]:
    if name in pictures:
        yield f"![{pictures[name]}]({name})"
        yield ""


def _number(value: float | None, digits: int = 3) -> str:
    return "none" if value is None or value != value else f"{value:.{digits}f}"

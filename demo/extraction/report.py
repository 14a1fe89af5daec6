"""The report beside an axis: what was run, what came out, which gates it passes, and what else it could have been."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from demo.axis.axis import FLOOR_NAMES, AssistantAxis
from demo.axis.gates import LEAST_SAME, LEAST_VERBATIM, MOST_PERPLEXITY
from demo.extraction.axis import Built
from demo.extraction.controls import Controls, compare, published_order
from demo.extraction.report_plots import write_plots
from demo.extraction.sweep import Trial

_GATE_WORDS = {
    "split_half": "cosine of the axes from two halves of the rollouts, same roles and questions on both",
    "cos_pc1": "absolute cosine of the axis with the roles' first principal component",
    "default_above_roles": "share of roles whose vector lies below the default",
    "auc": "default against role, per rollout, on roles and questions not used for the axis",
    "fluency": "perplexity of capped replies by the uncapped model, over that of uncapped ones (at most)",
    "sameness": "plain questions answered rightly without the cap that still are with it",
}


def write_report(out: Path, built: Built, controls: Controls) -> None:
    """Write report.md and its pictures into `out`."""
    pictures = write_plots(out, built)
    parts = [
        *_head(built.axis),
        *_gates(built.axis),
        *_roles(built.axis, pictures),
        *_uptake(built),
        *_components(built, controls, pictures),
        *_controls(controls),
        *_sweep(built, pictures),
        *_layers(built, pictures),
        *_floors(built.axis),
        "",
    ]
    (out / "report.md").write_text("\n".join(parts), encoding="utf-8")


def _head(axis: AssistantAxis) -> Iterator[str]:
    manifest = axis.manifest
    model, (first, last), sampling = manifest["model"], axis.cap_band, manifest["sampling"]
    yield f"# Assistant Axis of {model['id']}"
    yield ""
    yield (
        f"Written by `{manifest['created_with']['command']}`. {model['layers']} decoder layers, hidden size "
        f"{model['hidden_size']}, run in {model['dtype']}. Replies of up to {sampling['max_new_tokens']} tokens, "
        f"temperature {sampling['temperature']}, top-p {sampling['top_p']}, seed {sampling['seed']}."
    )
    yield ""
    yield (
        "Axis = mean activation of default replies minus mean role vector, over reply content tokens, at the output of "
        f"every decoder layer. Probe layer {axis.probe_layer}; cap at layers {first} to {last}, floor {axis.cap_floor} "
        f"of default reply means (chosen by {manifest['cap']['chosen_by']})."
    )
    yield ""
    yield from table(("rollouts", "number"), [(kind, str(n)) for kind, n in manifest["rollouts"].items()])


def _gates(axis: AssistantAxis) -> Iterator[str]:
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
    yield from table(("gate", "what", "value", "threshold", "passed"), rows)


def _roles(axis: AssistantAxis, pictures: dict[str, str]) -> Iterator[str]:
    yield from ("", "## Roles on the axis", "", "Axis units: 0 = average role, 1 = default Assistant.", "")
    yield from _picture("roles.svg", pictures)
    roles, published = axis.manifest["roles"], published_order()
    played = [role | {"projection": role["played"]} for role in roles if role["counts"]]
    for words, chosen in (
        ("all roles, each by all its rollouts", roles),
        ("roles that were taken up, by the rollouts in which they were", played),
    ):
        found = compare(chosen, published)
        if found is not None:
            yield (
                f"Spearman's rank correlation with the published order of Qwen3-32B over {found.roles} {words}: "
                f"{found.rho:.3f} (95% bootstrap interval {found.low:.3f} to {found.high:.3f})."
            )
            yield ""
    yield (
        "*All*: mean over all of the role's rollouts. *Taken up*: over the rollouts in which the model took up the role; "
        "these make the axis, where there are enough of them."
    )
    yield ""
    yield from table(
        ("role", "all", "taken up", "rollouts", "of them taken up"),
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


def _uptake(built: Built) -> Iterator[str]:
    manifest, probe = built.axis.manifest, built.axis.probe_layer
    roles, uptake = manifest["roles"], manifest["uptake"]
    kept, total = sum(role["kept"] for role in roles), sum(role["n"] for role in roles)
    yield from ("", "## Uptake: did the model take up its roles?", "")
    yield (
        f"Judge: {uptake['judge']}, threshold {uptake['threshold']:g}. It kept {kept} of {total} role rollouts; "
        f"{sum(role['counts'] for role in roles)} of {len(roles)} roles have the {uptake['least']} kept rollouts that "
        "make a role count. The others are listed above and are not part of the axis. Cosine of the "
        f"axis with the one made from every rollout, at the probe layer: {built.table.cos_unfiltered[probe]:.3f}."
    )
    if uptake["keep_all"]:
        yield "Every rollout was counted all the same (--keep-all)."
    yield ""
    aucs = (built.table.auc, built.table.auc_same_question, built.table.auc_unfiltered)
    taken_up, same, everything = (_number(float(values[probe])) for values in aucs)
    yield (
        f"Held-out AUC at the probe layer: {taken_up} over rollouts that were taken up, {same} when each is compared with "
        f"default replies to its own question only, {everything} over all rollouts."
    )
    yield from (
        "",
        "By how clearly the role is played (uptake score), over all of them, the upper half, quarter and tenth:",
        "",
    )
    yield from table(
        ("held-out role rollouts with this uptake score or more", "number", "AUC"),
        [(f"{least:.2f}", str(count), _number(auc)) for least, count, auc in built.by_uptake],
    )


def _components(built: Built, controls: Controls, pictures: dict[str, str]) -> Iterator[str]:
    found, probe, sheet = built.axis.manifest["pca"], built.axis.probe_layer, built.table
    yield from ("", "## Principal components of the role vectors", "")
    yield from _picture("variance.svg", pictures)
    yield (
        f"PC1 holds {found['explained_variance'][0]:.1%} of the variance; {found['components_for_70_percent']} components "
        "hold 70%."
    )
    yield ""
    yield from table(
        ("what, at the probe layer", "value"),
        [
            ("abs cos(axis, PC1)", _number(float(sheet.cos_pc1[probe]))),
            ("the same with the PC1 that both halves of the rollouts share (free of sampling noise)",
             _number(float(sheet.cos_common[probe]))),
            ("abs cos of the two halves' own PC1s (1 = no noise)", _number(float(sheet.pc1_halves[probe]))),
            *((f"length of the unit axis within the first {count} components", _number(value))
              for count, value in controls.inside.items()),
        ],
    )  # fmt: skip


def _controls(controls: Controls) -> Iterator[str]:
    yield from ("", "## Controls", "", "Axis units at the probe layer: 0 = average role, 1 = default.", "")
    rows = [("difference between two random halves of the default rollouts", f"{controls.default_gap:.3f}")]
    rows += [
        (f"default replies, system prompt: {prompt or 'none'}", f"{value:+.2f}")
        for prompt, value in controls.prompts.items()
    ]
    if controls.neutral is not None:
        rows.append(("replies under a long neutral system prompt", f"{controls.neutral:+.2f}"))
    if controls.cos_full_length is not None:
        rows.append(
            ("cosine with the axis from replies of full length only", f"{controls.cos_full_length:.3f}")
        )
    rows += [
        (f"mean reply length, {side}, tokens", f"{value:.1f}") for side, value in controls.tokens.items()
    ]
    yield from table(("control", "value"), rows)


def _sweep(built: Built, pictures: dict[str, str]) -> Iterator[str]:
    if not built.trials:
        return
    uncapped = built.trials[0]
    yield from ("", "## Sweep of the cap", "")
    yield (
        "Objective: the highest standing of role replies, as the unsteered model reads them, among settings with a "
        f"perplexity of at most {MOST_PERPLEXITY} times the uncapped one, at least {LEAST_SAME:.0%} of the plain "
        f"questions that were answered rightly ({uncapped.right}) still right, and at least {LEAST_VERBATIM:.0%} of all plain "
        "answers word for word: a cap is to leave ordinary replies alone."
    )
    yield ""
    yield from _picture("sweep.svg", pictures)
    head = ("layers", "floor", "role replies", "perplexity ratio", "still right", "word for word", "acted on role tokens",
            "acted on plain tokens", "qualifies")  # fmt: skip
    yield from table(head, [_trial(trial, uncapped) for trial in built.trials])


def _trial(trial: Trial, uncapped: Trial) -> tuple[str, ...]:
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
    axis, sheet = built.axis, built.table
    yield from ("", "## Layers", "")
    yield from _picture("layers.svg", pictures)
    columns = {
        "norm": sheet.norm,
        "AUC choosing": sheet.auc_choice,
        "AUC held out": sheet.auc,
        "AUC unfiltered": sheet.auc_unfiltered,
        "split half": sheet.split_half,
        "abs cos PC1": sheet.cos_pc1.abs(),
        "cos common PC1": sheet.cos_common,
        "PC1 share": sheet.pc1_share,
        "default above": sheet.default_above,
        "cos unfiltered": sheet.cos_unfiltered,
        "published order": sheet.published_order,
    }
    rows = [
        (str(layer), *(_number(float(values[layer]), 2) for values in columns.values()))
        for layer in range(axis.layers)
    ]
    yield from table(("layer", *columns), rows)


def _floors(axis: AssistantAxis) -> Iterator[str]:
    published = axis.manifest.get("published_convention", {})
    yield from ("", "## Floors", "")
    yield (
        "Percentiles of default reply means, axis units of their layer. The last column is the published convention's "
        "p0.25: the 25th percentile of role-wardness over all rollouts, so the 75th of Assistant-ness, over the held-out "
        "rollouts here."
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
    yield from table(("layer", *FLOOR_NAMES, "published p0.25"), rows)


def _picture(name: str, pictures: dict[str, str]) -> Iterator[str]:
    if name in pictures:
        yield f"![{pictures[name]}]({name})"
        yield ""


def _number(value: float | None, digits: int = 3) -> str:
    return "none" if value is None or value != value else f"{value:.{digits}f}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Markdown lines of a table."""
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    yield from ("| " + " | ".join(row) + " |" for row in rows)

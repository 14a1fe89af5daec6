"""The settings of a turn as the object `settings` of a session file (see docs/session-file.md)."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any, get_args

from demo.conversation.json_values import items, maybe, number, short, text, whole
from demo.conversation.settings import ALL_BRANCHES, OwnSettings, TurnSettings
from demo.engine.protocol import Cap, Sampling, Span, Steer
from demo.plots.marks import PlotMarks
from demo.utils.errors import UserError

_SAMPLING = ("seed", "temperature", "top_p", "repetition_penalty", "max_new_tokens", "soft_limit")


def settings_json(settings: TurnSettings) -> dict[str, Any]:
    """The settings as they are saved, and as the page shows them."""
    steer, marks = settings.steer, settings.marks
    cap: dict[str, Any] | None = None
    if settings.cap is not None:
        cap = {
            "floor_name": marks and marks.floor_name,
            "floor": marks and marks.floor,
            "layers": list(settings.cap.layers),
            "floors": list(settings.cap.floors),
            **_condition(settings.cap),
        }
    return {
        "cap": cap,
        **({} if steer is None else {"steer": _steer_json(steer)}),
        **({} if settings.also is None else {"also": _also_json(settings.also)}),
        **({"along": list(settings.along)} if settings.along else {}),
        **({"second": settings.second} if settings.second else {}),
        **({"plain": True} if settings.plain else {}),
        **({} if settings.only is None else {"only": settings.only}),
        **{name: getattr(settings.sampling, name) for name in _SAMPLING},
        "seeds": settings.seeds,
        "thinking": settings.thinking,
        "span": settings.span,
        "system_prompt": settings.system_prompt,
        "dtype": settings.dtype,
        **({"template": settings.template} if settings.template else {}),
        "attempt": settings.attempt,
        **({"read": True} if settings.read else {}),
        **({"own": {branch: _own_json(own) for branch, own in settings.own}} if settings.own else {}),
    }


def settings_from_json(data: dict[str, Any], marks: PlotMarks) -> TurnSettings:
    """The inverse of `settings_json`; `data` may be anything.

    Args:
        marks: those of the whole file, for what a turn's cap does not change.

    Raises:
        KeyError, TypeError, ValueError: it is not the settings of a turn.
    """
    cap, steer = data["cap"], data.get("steer")
    only, span = data.get("only"), data.get("span", "both")
    if (only is not None and only not in ALL_BRANCHES) or span not in get_args(Span):
        raise ValueError(f"settings {short((only, span))}")
    try:
        return TurnSettings(
            sampling=Sampling(
                temperature=number(data["temperature"]),
                top_p=number(data["top_p"]),
                max_new_tokens=whole(data["max_new_tokens"]),
                seed=whole(data["seed"]),
                repetition_penalty=number(data["repetition_penalty"]),
                soft_limit=whole(data.get("soft_limit", 0)),
            ),
            cap=None if cap is None else _cap(cap),
            system_prompt=text(data.get("system_prompt", "")),
            steer=None if steer is None else _steer(steer),
            only=only,
            seeds=whole(data.get("seeds", 1)),
            thinking=bool(data.get("thinking")),
            span=span,
            marks=_marks(cap, marks),
            dtype=text(data.get("dtype", "")),
            attempt=whole(data.get("attempt", 1)),
            read=bool(data.get("read")),
            also=None if data.get("also") is None else _second_cap(data["also"]),
            along=tuple(text(name) for name in items(data.get("along", []))),
            second=text(data.get("second", "")),
            plain=bool(data.get("plain")),
            own=_owns(data.get("own", {})),
            template=text(data.get("template", "")),
        )
    except UserError as error:  # a number out of range
        raise ValueError(short(error)) from error


def _condition(cap: Cap) -> dict[str, float]:
    return {} if cap.only_below is None else {"only_below": cap.only_below}


def _also_json(cap: Cap) -> dict[str, Any]:
    data = asdict(cap)
    del data["only_below"]
    return data | _condition(cap)


def _own_json(own: OwnSettings) -> dict[str, Any]:
    data: dict[str, Any] = {}
    if own.system_prompt is not None:
        data["system_prompt"] = own.system_prompt
    if own.temperature is not None:
        data["temperature"] = own.temperature
    if own.cap is not None:
        layers, floors = list(own.cap.layers), list(own.cap.floors)
        condition = _condition(own.cap)
        data["cap"] = {"floor_name": own.floor_name, "layers": layers, "floors": floors, **condition}
    return data


def _owns(data: dict[str, Any]) -> tuple[tuple[str, OwnSettings], ...]:
    if not data.keys() <= {*ALL_BRANCHES}:
        raise ValueError(f"settings of a branch {short(list(data))}")
    return tuple((branch, _own(data[branch])) for branch in ALL_BRANCHES if branch in data)


def _own(data: dict[str, Any]) -> OwnSettings:
    prompt, cap = data.get("system_prompt"), data.get("cap")
    return OwnSettings(
        None if prompt is None else text(prompt),
        maybe(data.get("temperature")),
        None if cap is None else _cap(cap),
        "" if cap is None else text(cap.get("floor_name") or ""),
    )


def _cap(data: dict[str, Any]) -> Cap:
    layers = tuple(whole(layer) for layer in items(data["layers"]))
    floors = tuple(number(floor) for floor in items(data["floors"]))
    if not layers or len(layers) != len(floors) or layers != tuple(sorted({*layers})) or layers[0] < 0:
        raise ValueError(f"capped layers {short(layers)}")
    direction, downward = text(data.get("direction", "")), bool(data.get("downward"))
    return Cap(layers, floors, direction, downward, maybe(data.get("only_below")))


def _second_cap(data: dict[str, Any]) -> Cap:
    cap = _cap(data)
    if not cap.direction:
        raise ValueError("a second cap without a direction")
    return cap


def _steer_json(steer: Steer) -> dict[str, Any]:
    direction = {"direction": steer.direction} if steer.direction else {}
    return {"layer": steer.layer, "alpha": steer.alpha, **direction}


def _steer(data: dict[str, Any]) -> Steer:
    return Steer(whole(data["layer"]), number(data["alpha"]), text(data.get("direction", "")))


def _marks(cap: dict[str, Any] | None, marks: PlotMarks) -> PlotMarks:
    """The charts' reference lines for a turn with this cap."""
    if cap is None:
        return replace(marks, floor=None, floor_name=None, floor_at_probe=True, cap_layers=None)
    layers, name = items(cap["layers"]), cap.get("floor_name")
    return replace(
        marks,
        floor=maybe(cap.get("floor")),
        floor_name=None if name is None else text(name),
        floor_at_probe=marks.probe_layer in layers,
        cap_layers=(whole(layers[0]), whole(layers[-1])),
    )

"""Finding plugins, and keeping a broken one from breaking the rest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pluggy

from cpufw import hookspecs
from cpufw.errors import PluginError


@dataclass
class Plugin:
    """One plugin that was found; `error` says why it is not in use."""

    name: str
    distribution: str
    version: str
    hooks: tuple[str, ...] = ()
    error: str | None = None
    _module: Any = field(default=None, repr=False)
    _calls: dict[str, pluggy.HookImpl] = field(default_factory=dict, repr=False)


class PluginSet:
    """Every plugin of the entry-point group `cpufw`, loaded or with the reason why not.

    With `strict` the first broken plugin raises `PluginError`.
    """

    def __init__(self, strict: bool = False) -> None:
        self.strict = strict
        self.plugins: list[Plugin] = []
        self._manager = pluggy.PluginManager(hookspecs.GROUP)
        self._manager.add_hookspecs(hookspecs)
        found = {(point.name, point.value): point for point in entry_points(group=hookspecs.GROUP)}
        # Built-in architectures come first, so that nobody can take their names.
        for point in sorted(found.values(), key=lambda p: (_distribution(p) != "cpufw", p.name)):
            self._load(point)

    def _load(self, point: EntryPoint) -> None:
        dist = point.dist
        plugin = Plugin(point.name, _distribution(point), dist.version if dist else "")
        namesakes = [other for other in self.plugins if other.name == plugin.name]
        self.plugins.append(plugin)
        try:
            if namesakes:
                owner = namesakes[0].distribution
                raise PluginError(f"a plugin '{plugin.name}' is there already, of {owner}")
            plugin._module = point.load()
            self._manager.register(plugin._module, name=point.name)
            hooks = self._manager.get_hookcallers(plugin._module) or []
            unknown = [caller.name for caller in hooks if not caller.has_spec()]
            if unknown:
                known = ", ".join(sorted(n for n in vars(hookspecs) if n.startswith("cpufw_")))
                raise PluginError(f"there is no hook {', '.join(unknown)}; hooks are {known}")
            plugin._calls = {
                impl.function.__name__: impl
                for caller in hooks
                for impl in caller.get_hookimpls()
                if impl.plugin is plugin._module
            }
            plugin.hooks = tuple(sorted(plugin._calls))
        except (Exception, SystemExit) as error:  # whatever its import does, the rest goes on
            self.fail(plugin, error)

    def fail(self, plugin: Plugin, error: BaseException) -> None:
        """Take `plugin` out of use because of `error`; raises instead when strict."""
        reason = str(error) or type(error).__name__
        if not isinstance(error, PluginError):
            reason = f"{type(error).__name__}: {reason}"
        plugin.error, plugin.hooks = reason, ()
        if plugin._module is not None and self._manager.is_registered(plugin._module):
            self._manager.unregister(plugin._module)
        if self.strict:
            raise PluginError(self.sentence(plugin)) from error

    @staticmethod
    def sentence(plugin: Plugin) -> str:
        """One sentence that says which plugin is not in use and why."""
        return (
            f"plugin '{plugin.name}' of {plugin.distribution or 'an unknown distribution'} "
            f"{plugin.version} is not in use: {plugin.error}"
        )

    @property
    def broken(self) -> list[Plugin]:
        """The plugins that are not in use."""
        return [plugin for plugin in self.plugins if plugin.error is not None]

    def collect(self, hook: str, kind: type = object) -> Iterator[tuple[Plugin, Any]]:
        """Each thing that the plugins' implementations of `hook` return lists of, with its plugin.

        A plugin whose implementation raises, or returns what is not a `kind`, is taken out of use.
        """
        for plugin, answer in self.ask(hook):
            try:
                things = list(answer)
                for thing in things:
                    if not isinstance(thing, kind):
                        raise PluginError(f"{hook} gives {thing!r}, expected {kind.__name__}")
            except Exception as error:
                self.fail(plugin, error)
                continue
            for thing in things:
                yield plugin, thing

    def ask(self, hook: str, **arguments: Any) -> Iterator[tuple[Plugin, Any]]:
        """What each plugin's implementation of `hook` answers, with its plugin.

        A plugin whose implementation raises is taken out of use.
        """
        for plugin in self.plugins:
            call = plugin._calls.get(hook) if plugin.error is None else None
            if call is None:
                continue
            try:
                # As pluggy does it: an implementation takes only the arguments it wants.
                answer = call.function(*(arguments[name] for name in call.argnames))
            except (Exception, SystemExit) as error:
                self.fail(plugin, error)
                continue
            yield plugin, answer

    def tell(self, hook: str, **arguments: Any) -> None:
        """Call `hook` of each plugin in use; a plugin that raises is taken out of use."""
        for _ in self.ask(hook, **arguments):
            pass


def _distribution(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else ""

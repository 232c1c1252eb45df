"""Finding plugins, and keeping a broken one from breaking the rest."""

from __future__ import annotations

import os
from importlib import import_module
from operator import attrgetter

from cpufw.definitions.stamp import file_signature
from cpufw.errors import PluginError
from cpufw.hookspecs import GROUP

TYPE_CHECKING = False  # importing typing would cost start-up time
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from importlib.metadata import Distribution
    from typing import Any

    from cpufw.definitions.stamp import PluginPoint, Signature


class Plugin:
    """One plugin that was found; `hooks` are those it has, `error` says why it is not in use."""

    def __init__(
        self,
        name: str,
        distribution: str,
        version: str,
        value: str,
        calls: Mapping[str, Sequence[str]] | None = None,
        files: Signature | None = None,
    ) -> None:
        self.name, self.distribution, self.version = name, distribution, version
        self.value = value  # where the object is: module or module:attribute
        self.calls: Mapping[str, Sequence[str]] = dict(
            calls or {}
        )  # each hook with the arguments that it takes
        self.files = files or []  # where it says so, as they were before it was loaded
        self.hooks = tuple(sorted(self.calls))
        self.error: str | None = None

    def load(self) -> Any:
        """The object with the hooks. Raises whatever its import raises."""
        module, _, attributes = self.value.partition("[")[0].replace(" ", "").partition(":")
        found = import_module(module)
        return attrgetter(attributes)(found) if attributes else found


class PluginSet:
    """Every plugin of the entry-point group `cpufw`, loaded or with the reason why not.

    With `strict` the first broken plugin raises `PluginError`. `points` are the plugins where
    they are known already, as in a fresh stamp: then each is loaded when it is first asked.
    """

    def __init__(self, strict: bool = False, points: Sequence[PluginPoint] | None = None) -> None:
        self.strict = strict
        self.plugins: list[Plugin] = []
        if points is None:
            self._discover()
        else:
            self.plugins = [Plugin(*point) for point in points]

    def _discover(self) -> None:
        # With pluggy a third of what a start would import: a fresh stamp saves it.
        from importlib.metadata import entry_points

        found = {(each.name, each.value): each.dist for each in entry_points(group=GROUP)}
        plugins = [
            Plugin(name, dist.name if dist else "", dist.version if dist else "", value)
            for (name, value), dist in found.items()
        ]
        # Built-in architectures come first, so that nobody can take their names.
        for plugin in sorted(plugins, key=lambda each: (each.distribution != "cpufw", each.name)):
            name = plugin.name
            namesakes = [other for other in self.plugins if other.name == name]
            self.plugins.append(plugin)
            try:
                if namesakes:
                    owner = namesakes[0].distribution
                    raise PluginError(f"a plugin '{name}' is there already, of {owner}")
                plugin.files = code_files(plugin.value)
                plugin.files += entry_point_files(found[name, plugin.value])
                plugin.calls = hooks_of(plugin.load())
                plugin.hooks = tuple(sorted(plugin.calls))
            except (Exception, SystemExit) as error:  # whatever its import does, the rest goes on
                self.fail(plugin, error)

    @property
    def points(self) -> list[PluginPoint]:
        """What another `PluginSet` needs to know of the plugins of this one."""
        return [
            (each.name, each.distribution, each.version, each.value, each.calls, each.files)
            for each in self.plugins
        ]

    def fail(self, plugin: Plugin, error: BaseException) -> None:
        """Take `plugin` out of use because of `error`; raises instead when strict."""
        reason = str(error) or type(error).__name__
        if not isinstance(error, PluginError):
            reason = f"{type(error).__name__}: {reason}"
        plugin.error, plugin.hooks = reason, ()
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
            if plugin.error is not None or hook not in plugin.calls:
                continue
            try:
                # As pluggy does it: an implementation takes only the arguments it wants.
                given = [arguments[name] for name in plugin.calls[hook]]
                answer = getattr(plugin.load(), hook)(*given)
            except (Exception, SystemExit) as error:
                self.fail(plugin, error)
                continue
            yield plugin, answer

    def tell(self, hook: str, **arguments: Any) -> None:
        """Call `hook` of each plugin in use; a plugin that raises is taken out of use."""
        for _ in self.ask(hook, **arguments):
            pass


def code_files(value: str) -> Signature:
    """Path, size and time of the module in an entry point's `value`; nothing if it has no file."""
    from importlib.util import find_spec

    spec = find_spec(value.partition(":")[0].partition("[")[0].strip())
    return (
        [file_signature(spec.origin)]
        if spec is not None and spec.has_location and spec.origin
        else []
    )


def entry_point_files(distribution: Distribution | None) -> Signature:
    """Path, size and time of the file that names the plugins of `distribution`, if it is one."""
    # Where a distribution's metadata is has no public name; without it a new time of the folder
    # that it is installed in tells of most changes.
    folder = getattr(distribution, "_path", None)
    file = f"{folder}/entry_points.txt"
    return [file_signature(file)] if os.path.isfile(file) else []  # noqa: PTH113


def hooks_of(module: Any) -> dict[str, tuple[str, ...]]:
    """The hooks that `module` has, each with the arguments that it takes.

    Raises `PluginError` for one that there is not, pluggy's own error for wrong arguments.
    """
    import pluggy

    from cpufw import hookspecs

    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(hookspecs)
    manager.register(module)
    hooks = manager.get_hookcallers(module) or []
    unknown = [caller.name for caller in hooks if not caller.has_spec()]
    if unknown:
        known = ", ".join(sorted(n for n in vars(hookspecs) if n.startswith("cpufw_")))
        raise PluginError(f"there is no hook {', '.join(unknown)}; hooks are {known}")
    return {
        impl.function.__name__: tuple(impl.argnames)
        for caller in hooks
        for impl in caller.get_hookimpls()
    }

"""A contract for import-linter, used in pyproject.toml: modules of a folder whose names begin alike are a family, and
a module of a family is imported by its family alone. So is a library that belongs to one.

A contract of import-linter's own would list each of the journal's forty modules twice, and miss each new one.
"""

from __future__ import annotations

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output


class FamiliesContract(Contract):
    """folder: the package. families: the name of each family; `redis` has the module redis and every redis_…
    libraries: `psycopg of postgres` for each library that only one family of the folder may import.
    """

    type_name = "families"
    folder: str = fields.StringField()  # type: ignore[assignment] # import-linter puts the values in their place
    families: list[str] = fields.ListField(subfield=fields.StringField())  # type: ignore[assignment]
    libraries: list[str] = fields.ListField(subfield=fields.StringField(), required=False, default=[])  # type: ignore[assignment]

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        wrong = []
        for module in sorted(graph.find_children(self.folder)):
            if family := self._family_of(module):
                for importer in sorted(graph.find_modules_that_directly_import(module)):
                    if self._family_of(importer) != family:
                        wrong.append(f"{importer} imports {module}")
        for library, _, owner in (each.partition(" of ") for each in self.libraries):
            if library in graph.modules:
                for importer in sorted(graph.find_modules_that_directly_import(library)):
                    if importer.startswith(f"{self.folder}.") and self._family_of(importer) != owner:
                        wrong.append(f"{importer} imports {library}")
        return ContractCheck(kept=not wrong, metadata={"wrong": wrong})

    def render_broken_contract(self, check: ContractCheck) -> None:
        for line in check.metadata["wrong"]:
            output.print_error(line)

    def _family_of(self, module: str) -> str | None:
        name = module.removeprefix(f"{self.folder}.").partition(".")[0]
        return next((family for family in self.families if name == family or name.startswith(f"{family}_")), None)

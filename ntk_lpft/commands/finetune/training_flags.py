"""Names of the options of transformers' ``TrainingArguments``, read from its source: importing it takes seconds."""

import ast
import importlib.util
from functools import cache
from pathlib import Path


@cache
def training_flags() -> tuple[str, ...]:
    """Return the names of the fields of ``TrainingArguments``, in its order; none where its source is not to be had."""
    package = importlib.util.find_spec("transformers")
    if package is None or package.origin is None:
        return ()
    file = Path(package.origin).with_name("training_args.py")
    if not file.is_file():
        return ()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name == "TrainingArguments":
            fields = [each.target for each in node.body if isinstance(each, ast.AnnAssign)]
            return tuple(each.id for each in fields if isinstance(each, ast.Name) and not each.id.startswith("_"))
    return ()

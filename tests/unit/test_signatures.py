"""Every registered function can take every input and attribute of its operator's schemas."""

import onnx
import pytest
import torch

from converters.to_torch import ops  # noqa: F401 - importing it fills the table
from converters.to_torch.gaps import GAPS, IGNORED, REFUSED
from converters.to_torch.optable import OPS, Op

OPTIONAL = onnx.defs.OpSchema.FormalParameterOption.Optional
VARIADIC = onnx.defs.OpSchema.FormalParameterOption.Variadic
DTYPES = {onnx.TensorProto.FLOAT: torch.float32, onnx.TensorProto.INT32: torch.int32}
DOMAIN = ""
TYPOS = {"foward": "forward"}  # GRU-1


def schemas():
    """Every version of every operator of the default domain, with the function that serves it."""
    for schema in onnx.defs.get_all_schemas_with_history():
        op = OPS.lookup(schema.domain, schema.name, schema.since_version)
        if schema.domain == DOMAIN and op is not None and not schema.deprecated:
            yield schema, op


def gap(schema, name):
    """Reason why an input or attribute is left out; None when it must be taken."""
    reasons = [
        reason
        for (domain, op_type, since, part), reason in GAPS.items()
        if (domain, op_type, part) == (schema.domain, schema.name, name)
        and since <= schema.since_version
    ]
    return reasons[0] if reasons else IGNORED.get(name)


def input_problems(schema, op: Op):
    for position, formal in enumerate(schema.inputs):
        if position >= len(op.inputs):
            if not op.variadic and gap(schema, formal.name) is None:
                yield f"no position for input {formal.name!r}"
            continue
        parameter = op.inputs[position]
        if parameter.name != formal.name and not _renamed(schema, position, parameter.name):
            yield f"input {position} is {formal.name!r}, the function calls it {parameter.name!r}"
        if formal.option == OPTIONAL and parameter.required:
            yield f"input {formal.name!r} is optional, the function requires it"
        if formal.option == VARIADIC and not op.variadic:
            yield f"input {formal.name!r} is variadic"


def _renamed(schema, position, name):
    """Whether another version calls the input at this position so, and this version none."""
    if name in {formal.name for formal in schema.inputs}:
        return False
    return name in {
        other.inputs[position].name
        for other in onnx.defs.get_all_schemas_with_history()
        if (other.domain, other.name) == (schema.domain, schema.name)
        and position < len(other.inputs)
    }


def attribute_problems(schema, op: Op):
    by_name = {parameter.name: parameter for parameter in op.inputs} | op.attributes
    for name, attribute in schema.attributes.items():
        if gap(schema, name) is not None:
            continue
        parameter = by_name.get(name)
        if parameter is None:
            yield f"no parameter for attribute {name!r}"
        elif not attribute.required and parameter.required:
            yield f"attribute {name!r} is optional, the function requires it"
        elif attribute.default_value.type:
            wanted = onnx.helper.get_attribute_value(attribute.default_value)
            if not same(wanted, parameter.default):
                yield f"default of {name!r} is {wanted!r}, the function has {parameter.default!r}"


def same(wanted, found):
    """Equal defaults: floats within float32 rounding, types by their torch counterparts."""
    if isinstance(wanted, bytes):
        return TYPOS.get(wanted.decode(), wanted.decode()) == found
    if isinstance(wanted, list):
        return len(wanted) == len(found) and all(map(same, wanted, found))
    if isinstance(found, torch.dtype):
        return DTYPES.get(wanted) is found
    if isinstance(wanted, float):
        return found == pytest.approx(wanted, rel=2**-23)
    return wanted == found


def test_signatures_agree_with_all_schema_versions():
    problems = [
        f"{schema.name}-{schema.since_version}: {problem}"
        for schema, op in schemas()
        for problem in (*input_problems(schema, op), *attribute_problems(schema, op))
    ]
    assert not problems, "\n".join(problems)


def test_the_check_sees_a_wrong_default_and_a_missing_attribute():
    def softmax(data, *, axis=0):
        return data

    schema = onnx.defs.get_schema("Softmax", 13)
    assert list(attribute_problems(schema, Op(softmax, 13)))
    schema = onnx.defs.get_schema("Gemm", 13)
    assert list(input_problems(schema, Op(softmax, 13)))


def test_every_operator_is_served_expanded_or_refused_with_a_reason():
    newest = {s.name: s for s in onnx.defs.get_all_schemas() if s.domain == DOMAIN}
    unexplained = [
        name
        for name, schema in newest.items()
        if not schema.deprecated
        and OPS.lookup(DOMAIN, name, schema.since_version) is None
        and not (schema.has_function or schema.has_context_dependent_function)
        and (DOMAIN, name) not in REFUSED
    ]
    assert unexplained == []


def test_an_operator_that_is_served_is_served_at_every_opset_from_six_on():
    served = {op_type for domain, op_type, _, _ in OPS if domain == DOMAIN}
    missing = [
        f"{schema.name}-{schema.since_version}"
        for schema in onnx.defs.get_all_schemas_with_history()
        if schema.domain == DOMAIN
        and schema.name in served
        and not schema.deprecated
        and OPS.lookup(DOMAIN, schema.name, max(schema.since_version, 6)) is None
    ]
    assert missing == []


def test_refused_operators_are_not_registered_and_gaps_name_real_parts():
    for domain, op_type in REFUSED:
        assert OPS.lookup(domain, op_type, 10_000) is None, op_type
    for domain, op_type, since, part in GAPS:
        schema = onnx.defs.get_schema(op_type, since, domain)
        assert schema.since_version == since, (op_type, since)
        assert part in schema.attributes or part in {i.name for i in schema.inputs}, part


def test_every_function_says_what_it_does():
    silent = [f"{op_type}-{since}" for _, op_type, since, op in OPS if not op.description]
    assert silent == []

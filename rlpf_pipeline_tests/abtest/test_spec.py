"""The spec file: what it takes, and what it says about mistakes."""

from __future__ import annotations

import pytest

from rlpf_pipeline.abtest.spec import Covariate, ExperimentSpec, read_spec
from rlpf_pipeline.errors import UserError


def test_a_spec_is_read_from_yaml(tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_text(
        "columns: {impressions: views}\narms: {control: 0, treatment: 1}\ncovariates: {lifetime_ctr: rate}\n"
    )
    spec = read_spec(path)
    assert spec.source_of("impressions") == "views"
    assert (spec.arms.control, spec.arms.treatment) == ("0", "1")
    assert [covariate.term for covariate in spec.all_covariates] == ["log_lifetime_ctr"]


def test_an_empty_file_is_the_contract(tmp_path):
    (tmp_path / "spec.yaml").write_text("")
    assert read_spec(tmp_path / "spec.yaml") == ExperimentSpec()
    assert Covariate("industry", "category") in ExperimentSpec().all_covariates


def test_a_segment_named_twice_is_one():
    spec = ExperimentSpec(segments=["industry", "budget", "industry"])
    assert spec.present(["advertiser_id", "arm", "impressions", "clicks", "industry", "budget"])[2] == (
        "industry",
        "budget",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("columns: [", "no YAML"),
        ("colunms: {}", "colunms"),
        ("treatment_share: 1.5", "treatment_share"),
        ("covariates: {my col: number}", "my col"),
        ("covariates: {clicks: count}", "clicks"),
        ("covariates: {class: category}", "class"),
        ("covariates: {Intercept: number}", "Intercept"),
        ("covariates: {spent: count, log_spent: number}", "two covariates make a column 'log_spent'"),
        ("covariates: {age: number, age_missing: flag}", "two covariates make a column 'age_missing'"),
        ("covariates: {Clicks: count}", "Clicks"),
        ("covariates: {Region: category, region: category}", "two covariates make a column"),
        ("date: 2024-02-30", "no YAML"),
        ("columns: {views: impressions}", "none of ours"),
        ("covariates: {region: text}", "region"),
        ("segments: [region]", "not among the covariates"),
        ("segments: [lifetime_ctr]", "has no levels"),
        ("arms: {control: A, treatment: A}", "both called 'A'"),
        ("arms: {control: off, treatment: on}", "write the arm in quotes"),
    ],
)
def test_mistakes_are_named(tmp_path, text, message):
    path = tmp_path / "spec.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_spec(path)
    with pytest.raises(UserError, match="No such file"):
        read_spec(tmp_path / "absent.yaml")


def test_a_spec_in_another_encoding_is_named(tmp_path):
    (tmp_path / "spec.yaml").write_bytes("date: größe".encode("latin-1"))
    with pytest.raises(UserError, match="no YAML"):
        read_spec(tmp_path / "spec.yaml")

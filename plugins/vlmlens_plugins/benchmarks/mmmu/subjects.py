"""The 30 subjects of MMMU in their six disciplines (arXiv 2311.16502, table 2)."""

from __future__ import annotations

from collections.abc import Mapping

DISCIPLINES: Mapping[str, tuple[str, ...]] = {
    "art_and_design": ("Art", "Art_Theory", "Design", "Music"),
    "business": ("Accounting", "Economics", "Finance", "Manage", "Marketing"),
    "science": ("Biology", "Chemistry", "Geography", "Math", "Physics"),
    "health_and_medicine": (
        "Basic_Medical_Science",
        "Clinical_Medicine",
        "Diagnostics_and_Laboratory_Medicine",
        "Pharmacy",
        "Public_Health",
    ),
    "humanities_and_social_science": ("History", "Literature", "Psychology", "Sociology"),
    "tech_and_engineering": (
        "Agriculture",
        "Architecture_and_Engineering",
        "Computer_Science",
        "Electronics",
        "Energy_and_Power",
        "Materials",
        "Mechanical_Engineering",
    ),
}
"""Subjects by discipline, as the names of the hub's configurations spell them."""
SUBJECTS = tuple(subject for subjects in DISCIPLINES.values() for subject in subjects)
DISCIPLINE_OF = {subject: name for name, subjects in DISCIPLINES.items() for subject in subjects}


def subject_named(text: str) -> str | None:
    """The subject that a text names, with blanks or underscores; None for any other text.

    >>> subject_named("Art Theory"), subject_named("Cooking")
    ('Art_Theory', None)
    """
    name = "_".join(text.split())
    return name if name in DISCIPLINE_OF else None


def subject_of_id(name: str) -> str | None:
    """The subject in an id such as `validation_Art_Theory_3`; None where there is none.

    >>> subject_of_id("validation_Art_Theory_3"), subject_of_id("17")
    ('Art_Theory', None)
    """
    parts = name.split("_")
    return subject_named("_".join(parts[1:-1])) if len(parts) > 2 else None

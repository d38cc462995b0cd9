"""The table: everything that is played, row by row."""

from __future__ import annotations

from tests.interop import events
from tests.interop.case import LIBRESWAN, STRONGSWAN_6_0, STRONGSWAN_6_1, Case
from tests.interop.terms import Authentication, Side, Terms

_STRONGSWANS = (STRONGSWAN_6_0, STRONGSWAN_6_1)

CASES: tuple[Case, ...] = (
    *Case.each("certificates P-256", (*_STRONGSWANS, LIBRESWAN), terms=Terms()),
    *Case.each("certificates P-384", (*_STRONGSWANS, LIBRESWAN), terms=Terms(authentication=Authentication.P384)),
    *Case.each("we delete the child", (*_STRONGSWANS, LIBRESWAN), terms=Terms(), event=events.we_delete_the_child),
    *Case.each("they delete the child", (*_STRONGSWANS, LIBRESWAN), terms=Terms(), event=events.they_delete_the_child),
    *Case.each("we delete the IKE SA", (*_STRONGSWANS, LIBRESWAN), terms=Terms(), event=events.we_delete_the_ike_sa),
    *Case.each(
        "they delete the IKE SA", (*_STRONGSWANS, LIBRESWAN), terms=Terms(), event=events.they_delete_the_ike_sa
    ),
    *Case.each(
        "they vanish", (*_STRONGSWANS, LIBRESWAN), terms=Terms(ours=Side(dpd_seconds=1)), event=events.they_vanish
    ),
    *Case.each("we vanish", (*_STRONGSWANS,), terms=Terms(theirs=Side(dpd_seconds=1)), event=events.we_vanish),
)

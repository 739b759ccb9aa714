"""Accounts: who somebody is, how that is proven, and what they may do to which study.

``service.Accounts`` is the way in for what comes over the network, ``policy.AccessPolicy`` the one place that
decides about access, ``shortlinks.ShortLinks`` and ``users.Users`` what staff and admins work with.
"""

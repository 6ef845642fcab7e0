"""Charges in the shape of FOCUS, the FinOps Open Cost and Usage Specification: one row for each group of a period.

Names and meanings of the columns follow FOCUS 1.2 (May 2025); what is our own begins with ``x_``. `docs/export.md` says
where it departs from the specification, and what the FinOps Foundation's validator said of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import orjson

from negawatt.exports.charges import GATEWAY, UNITS
from negawatt.exports.periods import Group, Period, Sums

VERSION = "1.2"  # of FOCUS, whose columns these are
_LISTED = frozenset({"genai-prices", "litellm"})  # price sources that are price lists
_NAMES = {
    "input": "input tokens", "output": "output tokens", "reasoning": "reasoning tokens",
    "cache_read": "input tokens read from the provider's cache", "cache_write": "input tokens written to its cache",
    "cache_write_1h": "input tokens written to its cache for an hour", "input_audio": "sound in",
    "input_image": "images in", "cache_read_audio": "sound in, from the provider's cache",
    "cache_read_image": "images in, from the provider's cache", "output_audio": "sound out",
    "output_image": "images out", "web_search": "searches of the web", "search_unit": "search units",
    "request": "fee of the request", "tokens": "tokens, not told apart by kind",
    "unreported": "what the provider did not say",
    "other": "cost that no attempt accounts for", "none": "calls that no provider was paid for",
}  # fmt: skip

# Each column with its type: text, money (12 decimals), amount (3 decimals), count, number, or time. Those that are
# empty in every row are there because readers of FOCUS ask for them.
COLUMNS: dict[str, str] = {
    "BilledCost": "money", "BillingAccountId": "text", "BillingAccountName": "text", "BillingCurrency": "text",
    "BillingPeriodEnd": "time", "BillingPeriodStart": "time", "ChargeCategory": "text", "ChargeClass": "text",
    "ChargeDescription": "text", "ChargeFrequency": "text", "ChargePeriodEnd": "time", "ChargePeriodStart": "time",
    "CommitmentDiscountCategory": "text", "CommitmentDiscountId": "text", "CommitmentDiscountName": "text",
    "CommitmentDiscountStatus": "text", "CommitmentDiscountType": "text", "ConsumedQuantity": "amount",
    "ConsumedUnit": "text", "ContractedCost": "money", "ContractedUnitPrice": "money", "EffectiveCost": "money",
    "InvoiceId": "text", "InvoiceIssuerName": "text", "ListCost": "money", "ListUnitPrice": "money",
    "PricingCategory": "text", "PricingQuantity": "amount", "PricingUnit": "text", "ProviderName": "text",
    "PublisherName": "text", "RegionId": "text", "RegionName": "text", "ResourceId": "text", "ResourceName": "text",
    "ResourceType": "text", "ServiceCategory": "text", "ServiceName": "text", "ServiceSubcategory": "text",
    "SkuId": "text", "SkuPriceId": "text", "SubAccountId": "text", "SubAccountName": "text", "Tags": "text",
    "x_TokenType": "text", "x_Model": "text", "x_CachedTokens": "count", "x_Calls": "count",
    "x_UnpricedCalls": "count", "x_PriceSource": "text", "x_CostSplit": "text", "x_EnergyWh": "number",
    "x_EnergyLowWh": "number", "x_EnergyHighWh": "number", "x_CO2eGrams": "number", "x_EnergyBasis": "text",
    "x_SavedCost": "money", "x_SavedTokens": "count", "x_Lever": "text", "x_SavingBasis": "text",
}  # fmt: skip


def focus_rows(period: Period, account: str) -> Iterator[dict[str, Any]]:
    """Give the rows of *period*, each with all `COLUMNS`; None is empty. *account*: the billing account.

    What a lever spared is two rows that cancel each other: an Adjustment, what would have been charged, and a Credit,
    by the lever that spared it. So every sum of BilledCost is what was billed.
    """
    for group, sums in period.groups:
        if group.lever is None:
            yield _usage(period, group, sums, account)
        elif sums.pusd or sums.quantity or sums.unpriced:
            yield _spared(period, group, sums, account, sign=1)
            yield _spared(period, group, sums, account, sign=-1)


def _usage(period: Period, group: Group, sums: Sums, account: str) -> dict[str, Any]:
    cost = sums.pusd if group.priced else None
    unit = UNITS.get(group.kind, "Tokens")
    quantity = None if sums.quantity is None else Decimal(sums.quantity)
    per = 1000 if unit == "Tokens" else 1
    row = _common(period, group, account)
    row.update(
        BilledCost=_money(cost),
        ChargeCategory="Usage",
        ChargeDescription=f"{group.model or 'no model'}: {_NAMES[group.kind]}",
        ConsumedQuantity=quantity,
        ConsumedUnit=unit,
        ContractedCost=_money(cost),
        EffectiveCost=_money(cost),
        ListCost=_money(cost if group.price_source in _LISTED or not cost else None),
        PricingCategory="Standard" if group.price_source in _LISTED else "Other",
        PricingQuantity=None if quantity is None else quantity / per,
        PricingUnit=unit if per == 1 else "1000 Tokens",
        x_CachedTokens=sums.quantity if group.kind.startswith("cache_read") else 0,
        x_Calls=sums.calls,
        x_UnpricedCalls=sums.unpriced,
        x_EnergyWh=sums.wh,
        x_EnergyLowWh=sums.low_wh,
        x_EnergyHighWh=sums.high_wh,
        x_CO2eGrams=sums.co2e_g,
        x_EnergyBasis=group.energy_basis or None,
    )
    return row


def _spared(period: Period, group: Group, sums: Sums, account: str, *, sign: int) -> dict[str, Any]:
    cost = sign * sums.pusd if group.priced else None
    what = "spared by" if sign < 0 else "would have been charged without"
    row = _common(period, group, account)
    row.update(
        BilledCost=_money(cost),
        ChargeCategory="Credit" if sign < 0 else "Adjustment",
        ChargeDescription=f"{group.model}: {what} the lever {group.lever} ({group.basis})",
        ContractedCost=_money(cost),
        EffectiveCost=_money(cost),
        ListCost=_money(cost),
        x_CachedTokens=0,
        x_Calls=0,
        x_UnpricedCalls=0,
        x_SavedCost=_money(sums.pusd) if sign < 0 and group.priced else None,
        x_SavedTokens=sums.quantity if sign < 0 else None,
        x_Lever=group.lever,
        x_SavingBasis=group.basis,
    )
    return row


def _common(period: Period, group: Group, account: str) -> dict[str, Any]:
    start, end = _moment(period.start), _moment(period.end)
    month = start.replace(day=1, hour=0)
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    row.update(
        BillingAccountId=account,
        BillingCurrency="USD",
        BillingPeriodStart=month,
        BillingPeriodEnd=month.replace(year=month.year + month.month // 12, month=month.month % 12 + 1),
        ChargeFrequency="Usage-Based",
        ChargePeriodStart=start,
        ChargePeriodEnd=end,
        InvoiceIssuerName=group.provider,
        ProviderName=group.provider,
        PublisherName=group.provider,
        ResourceId=group.key_id or None,
        ResourceType="API Key" if group.key_id else None,
        ServiceCategory="AI and Machine Learning",
        ServiceName="negawatt" if group.provider == GATEWAY else f"{group.provider} API",
        ServiceSubcategory="Generative AI",
        SkuId=f"{group.model}:{group.kind}",
        SubAccountId=group.tenant or None,
        Tags=orjson.dumps({"class": group.request_class}).decode(),
        x_TokenType=group.kind,
        x_Model=group.model or None,
        x_PriceSource=group.price_source or None,
        x_CostSplit=group.split or None,
    )
    return row


def _moment(at: int) -> datetime:
    return datetime.fromtimestamp(at, UTC)


def _money(pusd: int | None) -> Decimal | None:
    return None if pusd is None else Decimal(pusd).scaleb(-12)

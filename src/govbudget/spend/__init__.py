"""Spend: what AI calls cost, the limit that holds for a member, holds, the ledger, reports."""

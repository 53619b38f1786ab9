"""The head's protocol parameters as cardano-api JSON: no fees, no scripts, the least output as on the real chains."""

from __future__ import annotations

from fednode.hydra.devnet.ledger import Rules


def protocol_parameters(rules: Rules) -> dict[str, object]:
    """What GET /protocol-parameters answers. Sizes in bytes, money in lovelace."""
    return {
        "collateralPercentage": 150,
        "committeeMaxTermLength": 200,
        "committeeMinSize": 0,
        "costModels": {"PlutusV1": [0] * 166, "PlutusV2": [0] * 175, "PlutusV3": [0] * 297},
        "dRepActivity": 100,
        "dRepDeposit": 2_000_000,
        "dRepVotingThresholds": dict.fromkeys(
            (
                "committeeNoConfidence", "committeeNormal", "hardForkInitiation", "motionNoConfidence",
                "ppEconomicGroup", "ppGovGroup", "ppNetworkGroup", "ppTechnicalGroup", "treasuryWithdrawal",
                "updateToConstitution",
            ),
            0.0,
        ),
        "executionUnitPrices": {"priceMemory": 0, "priceSteps": 0},
        "govActionDeposit": 1_000_000_000,
        "govActionLifetime": 14,
        "maxBlockBodySize": 90_112,
        "maxBlockExecutionUnits": {"memory": 62_000_000, "steps": 20_000_000_000},
        "maxBlockHeaderSize": 1_100,
        "maxCollateralInputs": 3,
        "maxTxExecutionUnits": {"memory": 14_000_000, "steps": 10_000_000_000},
        "maxTxSize": rules.max_tx_size,
        "maxValueSize": rules.max_value_size,
        "minFeeRefScriptCostPerByte": 0,
        "minPoolCost": 0,
        "monetaryExpansion": 0.003,
        "poolPledgeInfluence": 0.3,
        "poolRetireMaxEpoch": 18,
        "poolVotingThresholds": dict.fromkeys(
            (
                "committeeNoConfidence", "committeeNormal", "hardForkInitiation", "motionNoConfidence",
                "ppSecurityGroup",
            ),
            0.0,
        ),
        "protocolVersion": {"major": 10, "minor": 0},
        "stakeAddressDeposit": 2_000_000,
        "stakePoolDeposit": 500_000_000,
        "stakePoolTargetNum": 100,
        "treasuryCut": 0.2,
        "txFeeFixed": rules.fee_fixed,
        "txFeePerByte": rules.fee_per_byte,
        "utxoCostPerByte": rules.utxo_cost_per_byte,
    }  # fmt: skip

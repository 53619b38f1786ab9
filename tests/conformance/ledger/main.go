// Command ledgerjudge judges Conway transactions by the ledger rules of gouroboros.
//
// It reads one JSON object a line from standard input and writes one JSON object a line to standard output:
//
//	{"tx": hex, "utxo": {"<txid>#<ix>": hex of the output}, "slot": n, "network": n,
//	 "maxTxSize": n, "maxValueSize": n, "utxoCostPerByte": n, "feeFixed": n, "feePerByte": n}
//	{"decoded": bool, "trailing": n, "id": hex, "failures": ["<rule>: <error type>", ...], "error": text}
//
// Every rule is applied, not only up to the first that fails, so that a test sees all of them.
package main

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"runtime"
	"strings"

	"github.com/blinklabs-io/gouroboros/cbor"
	"github.com/blinklabs-io/gouroboros/ledger/babbage"
	"github.com/blinklabs-io/gouroboros/ledger/common"
	"github.com/blinklabs-io/gouroboros/ledger/conway"
)

type question struct {
	Tx              string            `json:"tx"`
	Utxo            map[string]string `json:"utxo"`
	Slot            uint64            `json:"slot"`
	Network         uint              `json:"network"`
	MaxTxSize       uint              `json:"maxTxSize"`
	MaxValueSize    uint              `json:"maxValueSize"`
	UtxoCostPerByte uint64            `json:"utxoCostPerByte"`
	FeeFixed        uint              `json:"feeFixed"`
	FeePerByte      uint              `json:"feePerByte"`
}

type answer struct {
	Decoded  bool     `json:"decoded"`
	Trailing int      `json:"trailing"`
	ID       string   `json:"id"`
	Failures []string `json:"failures"`
	Error    string   `json:"error,omitempty"`
}

// ledgerState answers what a payment asks; of stake, votes and scripts it knows nothing. The embedded interface is nil:
// any other question panics, which is reported as an error of that rule and never as a pass.
type ledgerState struct {
	common.LedgerState
	network uint
	utxo    map[string]common.TransactionOutput
}

func (s *ledgerState) NetworkId() uint { return s.network }

func (s *ledgerState) UtxoById(input common.TransactionInput) (common.Utxo, error) {
	output, found := s.utxo[fmt.Sprintf("%s#%d", input.Id().String(), input.Index())]
	if !found {
		return common.Utxo{}, fmt.Errorf("no such output")
	}
	return common.Utxo{Id: input, Output: output}, nil
}

func (s *ledgerState) CostModels() map[common.PlutusLanguage]common.CostModel { return nil }

func (s *ledgerState) CommitteeMembers() ([]common.CommitteeMember, error) { return nil, nil }

func (s *ledgerState) CommitteeMember(common.Blake2b224) (*common.CommitteeMember, error) {
	return nil, nil
}

func (s *ledgerState) DRepRegistration(common.Blake2b224) (*common.DRepRegistration, error) {
	return nil, nil
}

func (s *ledgerState) GovActionById(common.GovActionId) (*common.GovActionState, error) {
	return nil, nil
}

func (s *ledgerState) GovActionExists(common.GovActionId) bool { return false }

func (s *ledgerState) IsPoolRegistered(common.PoolKeyHash) bool { return false }

func (s *ledgerState) IsStakeCredentialRegistered(common.Credential) bool { return false }

func (s *ledgerState) IsRewardAccountRegistered(common.Credential) bool { return false }

func (s *ledgerState) RewardAccountBalance(common.Credential) (*uint64, error) { return nil, nil }

func (s *ledgerState) TreasuryValue() (uint64, error) { return 0, nil }

func judge(q question) (result answer) {
	result.Failures = []string{}
	raw, err := hex.DecodeString(q.Tx)
	if err != nil {
		result.Error = err.Error()
		return result
	}
	state := &ledgerState{network: q.Network, utxo: map[string]common.TransactionOutput{}}
	for reference, text := range q.Utxo {
		bytes, err := hex.DecodeString(text)
		if err != nil {
			result.Error = err.Error()
			return result
		}
		output, err := babbage.NewBabbageTransactionOutputFromCbor(bytes)
		if err != nil {
			result.Error = "utxo " + reference + ": " + err.Error()
			return result
		}
		state.utxo[reference] = output
	}
	var tx conway.ConwayTransaction
	count, err := cbor.Decode(raw, &tx)
	if err != nil {
		result.Error = err.Error()
		return result
	}
	result.Decoded, result.Trailing, result.ID = true, len(raw)-count, tx.Hash().String()
	parameters := &conway.ConwayProtocolParameters{
		MinFeeA:         q.FeePerByte,
		MinFeeB:         q.FeeFixed,
		MaxTxSize:       q.MaxTxSize,
		MaxValueSize:    q.MaxValueSize,
		AdaPerUtxoByte:  q.UtxoCostPerByte,
		ProtocolVersion: common.ProtocolParametersProtocolVersion{Major: 10},
	}
	for _, rule := range conway.UtxoValidationRules {
		if failure := apply(rule, &tx, q.Slot, state, parameters); failure != "" {
			result.Failures = append(result.Failures, name(rule)+": "+failure)
		}
	}
	return result
}

func apply(
	rule common.UtxoValidationRuleFunc,
	tx common.Transaction,
	slot uint64,
	state common.LedgerState,
	parameters common.ProtocolParameters,
) (failure string) {
	defer func() {
		if problem := recover(); problem != nil {
			failure = fmt.Sprintf("panic %v", problem)
		}
	}()
	if err := rule(tx, slot, state, parameters); err != nil {
		return fmt.Sprintf("%T", err)
	}
	return ""
}

func name(rule common.UtxoValidationRuleFunc) string {
	full := runtime.FuncForPC(reflect.ValueOf(rule).Pointer()).Name()
	return strings.TrimPrefix(full[strings.LastIndex(full, ".")+1:], "UtxoValidate")
}

func main() {
	input := bufio.NewScanner(os.Stdin)
	input.Buffer(nil, 16<<20)
	output := bufio.NewWriter(os.Stdout)
	defer output.Flush()
	encoder := json.NewEncoder(output)
	for input.Scan() {
		var q question
		if err := json.Unmarshal(input.Bytes(), &q); err != nil {
			fmt.Fprintln(os.Stderr, "not a question:", err)
			os.Exit(1)
		}
		if err := encoder.Encode(judge(q)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	if err := input.Err(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

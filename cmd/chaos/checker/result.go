package checker

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Manifest is a _SUCCESS.
type Manifest struct {
	Job     string `json:"job"`
	Parts   []Part `json:"parts"`
	Records int64  `json:"records"`
	Ledger  struct {
		SegmentRecords int64 `json:"segmentRecords"`
		FetchedRecords int64 `json:"fetchedRecords"`
	} `json:"ledger"`
}

// Part is one part that a manifest names; the key is without the bucket.
type Part struct {
	Key     string `json:"key"`
	Size    int64  `json:"size"`
	ETag    string `json:"etag"`
	Records int64  `json:"records"`
}

// Want is what a result must hold.
type Want interface {
	// Check says what is wrong with the lines of the parts, in the order of the manifest.
	Check(parts [][]string) []string
}

// Verify holds the result of a completed job against the truth: what _SUCCESS names, as it was read, byte for byte.
func Verify(j Job, s Status, m Manifest, parts [][]byte) (wrong []string) {
	say := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	if m.Job != s.ID {
		say("_SUCCESS is of job %s", m.Job)
	}
	if len(parts) != len(m.Parts) {
		return append(wrong, fmt.Sprintf("%d parts were read, %d are named", len(parts), len(m.Parts)))
	}
	var lines [][]string
	var records int64
	for i, p := range m.Parts {
		if int64(len(parts[i])) != p.Size {
			say("%s has %d bytes, and is named with %d", p.Key, len(parts[i]), p.Size)
		}
		if n := len(parts[i]); n > 0 && parts[i][n-1] != '\n' {
			say("%s does not end with a newline", p.Key)
		}
		l := Lines(parts[i])
		if int64(len(l)) != p.Records {
			say("%s has %d records, and is named with %d", p.Key, len(l), p.Records)
		}
		records += int64(len(l))
		lines = append(lines, l)
	}
	if records != m.Records || records != s.OutputRecords {
		say("%d records in the parts, %d in _SUCCESS, %d in the job", records, m.Records, s.OutputRecords)
	}
	if m.Ledger.SegmentRecords != m.Ledger.FetchedRecords {
		say("the ledger has %d records written and %d fetched", m.Ledger.SegmentRecords, m.Ledger.FetchedRecords)
	}
	if n := s.Counters["millrace"]["mapInputRecords"]; n != j.InputRecords {
		say("the maps counted %d records of input, there are %d", n, j.InputRecords)
	}
	return append(wrong, j.Want.Check(lines)...)
}

// Lines cuts text into lines, without their ends.
func Lines(text []byte) []string {
	if len(text) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
}

// Bag wants exactly these lines, each as often as it is there, in any order.
type Bag map[string]int

// Check implements Want.
func (want Bag) Check(parts [][]string) []string {
	got := Bag{}
	for _, p := range parts {
		for _, line := range p {
			got[line]++
		}
	}
	return want.differs(got)
}

// differs says how often lines are there and how often they must be, for those that matter most.
func (want Bag) differs(got Bag) []string {
	if maps.Equal(want, got) {
		return nil
	}
	all := maps.Clone(want)
	maps.Copy(all, got)
	var wrong []string
	missing, extra := 0, 0
	for _, line := range slices.Sorted(maps.Keys(all)) {
		if d := got[line] - want[line]; d != 0 {
			missing, extra = missing+max(-d, 0), extra+max(d, 0)
			if len(wrong) < 3 {
				wrong = append(wrong, fmt.Sprintf("%.60q is there %d times, not %d", line, got[line], want[line]))
			}
		}
	}
	return append([]string{fmt.Sprintf("%d records are missing, %d are too many", missing, extra)}, wrong...)
}

// Sorted wants these lines, those of each part in order.
type Sorted Bag

// Check implements Want.
func (want Sorted) Check(parts [][]string) (wrong []string) {
	for i, p := range parts {
		if !slices.IsSorted(p) {
			wrong = append(wrong, fmt.Sprintf("part %d is not in order", i))
		}
	}
	return append(wrong, Bag(want).Check(parts)...)
}

// Counts wants a line "key TAB count" for each key, once.
type Counts map[string]int64

// Check implements Want.
func (want Counts) Check(parts [][]string) []string {
	bag := Bag{}
	for key, n := range want {
		bag[key+"\t"+strconv.FormatInt(n, 10)]++
	}
	wrong := bag.Check(parts)
	keys := map[string]int{}
	for _, p := range parts {
		for _, line := range p {
			key, _, _ := strings.Cut(line, "\t")
			keys[key]++
		}
	}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		if keys[key] > 1 {
			return append(wrong, fmt.Sprintf("%q comes %d times", key, keys[key]))
		}
	}
	return wrong
}

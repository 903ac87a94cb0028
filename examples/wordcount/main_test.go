package main

import (
	"slices"
	"testing"

	"millrace/jobs/mapreduce/mrtest"
)

func TestCountsEachWord(t *testing.T) {
	got := mrtest.Run(t, job, "to be or not", "  to be ", "")
	want := []string{"be\t2", "not\t1", "or\t1", "to\t2"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestCountsAreTheSameHoweverTheInputIsCut(t *testing.T) {
	r := mrtest.RunWith(t, job, mrtest.Options{Splits: 7, Reduces: 3}, "a b a", "b a", "c", "a")
	if n := r.Counters["millrace.mapInputRecords"]; n != 4 {
		t.Errorf("%d lines read, want 4", n)
	}
	got := r.Lines
	slices.Sort(got)
	if want := []string{"a\t4", "b\t2", "c\t1"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

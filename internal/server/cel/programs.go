package cel

import (
	"crypto/sha256"
	"encoding/json"
	"sync"
	"weak"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
)

// Programs are the compiled expressions in use, by content. They are held weakly: what no policy and no webhook says any longer is freed. The zero
// value is ready for use.
type Programs struct {
	conditions shared[Conditions]
	validating shared[Validating]
	mutating   shared[Mutating]
}

// Conditions returns the match conditions of a webhook, compiled when they are first evaluated.
func (p *Programs) Conditions(list []admissionregistrationv1.MatchCondition) *Conditions {
	return p.conditions.find(list, func() *Conditions { return newConditions(list) })
}

// Validating returns what a ValidatingAdmissionPolicy says, compiled when it is first evaluated.
func (p *Programs) Validating(spec *admissionregistrationv1.ValidatingAdmissionPolicySpec) *Validating {
	said := *spec
	said.MatchConstraints = nil // who is meant is not compiled
	return p.validating.find(&said, func() *Validating { return newValidating(&said) })
}

// Mutating returns what a MutatingAdmissionPolicy says, compiled when it is first evaluated.
func (p *Programs) Mutating(spec *admissionregistrationv1.MutatingAdmissionPolicySpec) *Mutating {
	said := *spec
	said.MatchConstraints = nil
	return p.mutating.find(&said, func() *Mutating { return newMutating(&said) })
}

// shared are values that were made of the same content.
type shared[T any] struct {
	mu    sync.Mutex
	known map[[32]byte]weak.Pointer[T]
}

// find returns the value of a content, which is not changed afterwards; made makes it where nobody has it.
func (s *shared[T]) find(content any, made func() *T) *T {
	text, err := json.Marshal(content)
	if err != nil {
		return made() // it is shared with nobody
	}
	id := sha256.Sum256(text)
	s.mu.Lock()
	defer s.mu.Unlock()
	if have := s.known[id].Value(); have != nil {
		return have
	}
	if s.known == nil {
		s.known = map[[32]byte]weak.Pointer[T]{}
	}
	for id, p := range s.known { // those that nobody has any longer
		if p.Value() == nil {
			delete(s.known, id)
		}
	}
	v := made()
	s.known[id] = weak.Make(v)
	return v
}

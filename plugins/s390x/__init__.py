"""The s390x architecture: IBM Z."""

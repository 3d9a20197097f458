"""Four related systems beside the default network, on the same inputs, body, data, trainer and measures.

contract.py what each of them is and gives, registry.py their names, regressor.py what TCMR and LMR share; pmce, tcmr,
lmr and posture one folder each: network.py the network, objective.py what its training minimises.
"""

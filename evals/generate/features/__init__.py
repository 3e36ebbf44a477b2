"""What happened to the services over the months: a pool of edits for each, from which history.py draws. None of them is guilty.

Each function gives chains: the edits of one chain are applied in their order, chains in any.
"""

from agent.evals.generate.features.orders import orders
from agent.evals.generate.features.parcels import parcels
from agent.evals.generate.features.pricing import pricing
from agent.evals.generate.features.storefront import storefront

POOLS = {"storefront": storefront, "orders": orders, "pricing": pricing, "parcels": parcels}
